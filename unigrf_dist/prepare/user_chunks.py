"""From a stream of events sorted by user to chunks of whole users."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unigrf_dist.prepare.raw_checks import MICROSECONDS_PER_SECOND


@dataclass(frozen=True)
class UserChunk:
    """Consecutive users with all their events.

    Attributes:
        raw_user_ids: ``[U]`` int64 or string.
        lengths: ``[U]`` int64, events of each user.
        item_ids: ``[E]`` int64, dense item ids, oldest event first within a user.
        behaviours: ``[E]`` int16 codes.
        timestamps: ``[E]`` int64, seconds.
        num_unsorted_users: users whose raw events were in another order.
        num_duplicates: events that equal an earlier one of the same user, time, item and behaviour.
    """

    raw_user_ids: pa.Array
    lengths: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    behaviours: NDArray[np.int16]
    timestamps: NDArray[np.int64]
    num_unsorted_users: int
    num_duplicates: int


def user_chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[UserChunk]:
    """Regroup sorted events into chunks of whole users.

    Args:
        batches: record batches with the columns raw user, item id, behaviour code, time in microseconds and
            position in the raw files; sorted by user, and within a user in the order to be written.
    """
    pending: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        users = batch.column(0)
        # The last user may go on in the next batch: hold it back.
        last = pc.index(users, users[-1]).as_py()
        if last:
            yield _chunk(pa.Table.from_batches([*pending, batch.slice(0, last)]))
            pending = []
        pending.append(batch.slice(last))
    if pending:
        yield _chunk(pa.Table.from_batches(pending))


class RowFeed:
    """Hands out the rows of a stream of batches in portions of any size.

    Args:
        batches: record batches with at least as many rows as will be taken; no batch at all stands for rows
            without columns.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = iter(batches)
        self._remaining: pa.Table | None = None

    def take(self, rows: int) -> list[pa.Array]:
        """Columns of the next ``rows`` rows; no columns once the batches are used up."""
        while self._remaining is None or self._remaining.num_rows < rows:
            batch = next(self._batches, None)
            if batch is None:
                return []
            more = pa.Table.from_batches([batch])
            self._remaining = more if self._remaining is None else pa.concat_tables([self._remaining, more])
        taken, self._remaining = self._remaining.slice(0, rows), self._remaining.slice(rows)
        return [column.combine_chunks() for column in taken.columns]


def _chunk(events: pa.Table) -> UserChunk:
    users, *columns = (column.combine_chunks() for column in events.columns)
    item_ids, behaviours, times, position = (column.to_numpy() for column in columns)
    changes = pc.not_equal(users.slice(1), users.slice(0, len(users) - 1)).to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    backward = (np.diff(position) < 0) & ~changes
    unsorted = np.unique(np.searchsorted(starts, np.flatnonzero(backward), side="right"))
    return UserChunk(
        raw_user_ids=users.take(pa.array(starts)),
        lengths=np.diff(np.append(starts, len(users))),
        item_ids=item_ids,
        behaviours=behaviours,
        timestamps=pc.divide(columns[2], MICROSECONDS_PER_SECOND).to_numpy(),
        num_unsorted_users=len(unsorted),
        num_duplicates=_num_duplicates(changes, times, item_ids, behaviours),
    )


def _num_duplicates(
    changes: NDArray[np.bool_],
    times: NDArray[np.int64],
    item_ids: NDArray[np.int64],
    behaviours: NDArray[np.int16],
) -> int:
    """Events that equal an earlier one; ``changes[n]`` says whether ``n`` and ``n + 1`` are of two users."""
    ties = (np.diff(times) == 0) & ~changes
    # Only events that share user and time with another one need to be compared.
    tied = np.append(ties, False) | np.insert(ties, 0, False)
    groups = np.cumsum(np.insert(~ties, 0, False))[tied]
    columns = (groups, item_ids[tied], behaviours[tied])
    order = np.lexsort(columns)
    equal = [np.diff(column[order]) == 0 for column in columns]
    return int(np.logical_and.reduce(equal).sum())
