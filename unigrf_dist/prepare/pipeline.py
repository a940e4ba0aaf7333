"""``unigrf prepare``: raw interactions into a data set.

DuckDB reads and checks the rows and writes them to disk by buckets of their users; buckets are sorted one by one
(``tasks``), and the sorted buckets are merged into the shards (``assembly``). Neither events nor users have to fit
into memory, only the items.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.assembly import write_dataset
from unigrf_dist.prepare.formats import describe_all
from unigrf_dist.prepare.plan import OnBadRow, Thinning, make_plan
from unigrf_dist.prepare.progress import Progress, StageClock, no_progress
from unigrf_dist.prepare.source import ColumnMapping
from unigrf_dist.prepare.staging import new_folder, refuse_used, user_error_of_disk
from unigrf_dist.prepare.staging_folder import staging_folder
from unigrf_dist.prepare.summary import DatasetSummary
from unigrf_dist.prepare.suspicions import suspicion_of_skipped
from unigrf_dist.prepare.tasks import Share, Tasks
from unigrf_dist.prepare.workspace import workspace


def prepare(
    format: str,
    *,
    raw: Path | Sequence[Path],
    out: Path,
    on_bad_row: OnBadRow = "error",
    max_skipped: float | None = None,
    drop_duplicates: bool = False,
    min_events: int = 1,
    min_item_events: int = 1,
    columns: ColumnMapping | None = None,
    memory_limit: str = "2GB",
    row_group_users: int = 256,
    shard_users: int = 65_536,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DatasetSummary:
    """Make a data set of raw interactions.

    Args:
        format: name of a format in ``unigrf_dist.prepare.formats``.
        raw: raw file, or folder that holds the format's files; or several of them, read one after the other.
        out: folder to write; it appears only when all went well.
        on_bad_row: ``error`` ends at the first row that cannot be read; ``skip`` skips such rows, counts them and
            keeps a sample of them in the manifest.
        max_skipped: largest share of skipped rows, in [0, 1]; None for any.
        drop_duplicates: keep only the first of events that are alike in user, item, time and behaviour.
        min_events, min_item_events: users and items with fewer events are dropped. Both counts are taken once,
            before anything is dropped.
        columns: meaning of the columns; for the formats whose columns have to be named only.
        memory_limit: memory limit of DuckDB, such as ``2GB``; beyond it, DuckDB spills to disk beside ``out``.
        row_group_users: users of a row group, the unit in which data is read.
        shard_users: users of a shard, rounded up to whole row groups.
        overwrite: replace ``out`` if it holds something.
        progress: called as the work goes on.

    Raises:
        UserError: an option is out of range, the raw files cannot be read or hold bad rows, ``out`` cannot be
            written, or the disk or the memory limit is too small.
    """
    _check_options(on_bad_row, min_events, min_item_events, max_skipped)
    begun, clock = time.perf_counter(), StageClock(progress or no_progress)
    out, sources = Path(out), describe_all(format, _paths(raw), columns)
    thinning = Thinning(drop_duplicates, min_events, min_item_events)
    plan = make_plan([source for _, source in sources], on_bad_row, thinning)
    with user_error_of_disk(out):
        refuse_used(out, overwrite)
        with (
            staging_folder(out, plan.fingerprint(), shared=False) as staging,
            staging.scratch() as scratch,
            workspace(scratch, memory_limit) as connection,
        ):
            tasks = Tasks(plan, staging, connection, clock)
            tasks.read(Share().of_files(plan))
            skipped = suspicion_of_skipped(tasks.skipped_rows(), tasks.num_good_rows(), max_skipped)
            tasks.advance(Share())
            chosen = {"drop_duplicates": "yes"} if drop_duplicates else {}
            least = {"min_events": min_events, "min_item_events": min_item_events}
            with new_folder(out, overwrite=overwrite) as folder:
                manifest = write_dataset(
                    tasks,
                    connection,
                    folder,
                    row_group_users=row_group_users,
                    shard_users=shard_users,
                    format=format,
                    sources=sources,
                    arguments={**least, **chosen, **(columns.as_arguments() if columns else {})},
                    warnings=skipped,
                    report=clock,
                )
    clock.stop()
    notes = [note for _, source in sources for note in source.notes]
    return DatasetSummary(out, manifest, time.perf_counter() - begun, notes, clock.seconds)


def prepare_share(
    format: str,
    share: Share,
    *,
    raw: Path | Sequence[Path],
    out: Path,
    on_bad_row: OnBadRow = "error",
    drop_duplicates: bool = False,
    min_events: int = 1,
    min_item_events: int = 1,
    columns: ColumnMapping | None = None,
    memory_limit: str = "2GB",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> str | None:
    """Do a share of the work of ``prepare`` ahead of it, as one of several processes or machines.

    What it has done lies in a folder beside ``out``, where ``prepare`` finds it. It never waits for other shares.

    Args:
        format, raw, out, on_bad_row, drop_duplicates, min_events, min_item_events, columns, memory_limit,
            overwrite, progress: see ``prepare``, which must be given the same.
        share: which share.

    Returns:
        what this share waits for before it can do more; None if nothing is left but ``prepare``.

    Raises:
        UserError: see ``prepare``.
    """
    _check_options(on_bad_row, min_events, min_item_events, None)
    out = Path(out)
    plan = make_plan(
        [source for _, source in describe_all(format, _paths(raw), columns)],
        on_bad_row,
        Thinning(drop_duplicates, min_events, min_item_events),
    )
    with user_error_of_disk(out):
        refuse_used(out, overwrite)
        with (
            staging_folder(out, plan.fingerprint(), shared=True) as staging,
            staging.scratch() as scratch,
            workspace(scratch, memory_limit) as connection,
        ):
            return Tasks(plan, staging, connection, progress or no_progress).advance(share)


def _paths(raw: Path | Sequence[Path]) -> list[Path]:
    return [Path(raw)] if isinstance(raw, (str, Path)) else [Path(path) for path in raw]


def _check_options(on_bad_row: str, min_events: int, min_item_events: int, max_skipped: float | None) -> None:
    if on_bad_row not in ("error", "skip"):
        raise UserError(f"on_bad_row is {on_bad_row!r}; allowed are 'error' and 'skip'")
    if max_skipped is not None and not 0 <= max_skipped <= 1:
        raise UserError(f"max_skipped is {max_skipped}; it is a share between 0 and 1")
    for name, value in (("min_events", min_events), ("min_item_events", min_item_events)):
        if value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")
