"""Lists of many users into one Parquet file, with raw ids; computed by one process or by ranks that share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from unigrf_dist.errors import UserError
from unigrf_dist.ranks.collective import Collective
from unigrf_dist.serve.asked import Asked
from unigrf_dist.serve.lists import Lists
from unigrf_dist.serve.recommender import Recommender
from unigrf_dist.serve.stages import ListOptions

_ROWS_OF_A_GROUP = 1 << 17


def write_lists(
    recommender: Recommender,
    asked: Asked,
    options: ListOptions,
    out: Path,
    *,
    explain: bool,
    batch_users: int,
    progress: Callable[[int, int], None],
    ranks: Collective,
) -> None:
    """Answer all requests and write the lists; the file appears only when all went well.

    Its bytes depend neither on the number of ranks nor on ``batch_users``: a model's pass over one user runs on
    one thread, because the last bits of a matrix product depend on how many threads share it, and row groups are
    of equal size.

    Columns: ``user``, ``rank`` from 1, ``item``, ``score``, ``source`` (``model`` or ``popularity``); with
    ``explain`` also ``log_retrieval`` and a ``probability[TASK]`` of each ranking task, null where the model was
    not asked.

    Args:
        recommender: the run.
        asked: the requests.
        options: what kind of lists.
        out: Parquet file.
        explain: also write the scores of both stages.
        batch_users: requests that a rank computes together.
        ranks: those that share the work, of which the first one writes.
        progress: told the requests done and their total.

    Raises:
        UserError: the file can't be written, or a request is refused.
    """
    schema = _schema(recommender, asked, explain)
    raw_items = recommender.run.items.raw_ids
    with _one_thread(), _ListsFile(out, schema) if ranks.rank == 0 else nullcontext() as file:
        for first, size, lists in _all_lists(recommender, asked, options, batch_users, ranks):
            if file is not None:
                file.add(_table(schema, asked.names(first, size), lists, raw_items))
            progress(first + size, len(asked))


def partial_file(out: Path) -> Path:
    """Where ``out`` is written to until it is whole."""
    return out.with_name(f"{out.name}.partial")


def _all_lists(
    recommender: Recommender, asked: Asked, options: ListOptions, batch_users: int, ranks: Collective
) -> Iterator[tuple[int, int, Lists]]:
    """Requests from the first on, how many, and their lists, which every rank gets."""
    together = batch_users * ranks.world_size
    for first in range(0, len(asked), together):
        size = min(together, len(asked) - first)
        own = range(size * ranks.rank // ranks.world_size, size * (ranks.rank + 1) // ranks.world_size)
        batch = asked.batch(first + own.start, len(own))
        yield first, size, recommender.lists(batch.histories, batch.at, options).of_all(ranks)


class _ListsFile:
    """A Parquet file that appears when it is left without an error.

    Args:
        out: where it appears.
        schema: its columns.
    """

    def __init__(self, out: Path, schema: pa.Schema) -> None:
        self._out, self._partial = out, partial_file(out)
        self._waiting = schema.empty_table()
        try:
            self._writer = pq.ParquetWriter(self._partial, schema, compression="zstd")
        except OSError as error:
            raise self._unwritten(error) from error

    def __enter__(self) -> _ListsFile:
        return self

    def add(self, rows: pa.Table) -> None:
        """Append ``rows``."""
        self._waiting = pa.concat_tables([self._waiting, rows])
        try:
            while len(self._waiting) >= _ROWS_OF_A_GROUP:
                self._write(self._waiting.slice(0, _ROWS_OF_A_GROUP))
                self._waiting = self._waiting.slice(_ROWS_OF_A_GROUP)
        except OSError as error:
            raise self._unwritten(error) from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and len(self._waiting):
                self._write(self._waiting)
            self._writer.close()
            if kind is None:
                self._partial.replace(self._out)
        except OSError as error:
            if kind is None:
                raise self._unwritten(error) from error
        finally:
            self._partial.unlink(missing_ok=True)

    def _write(self, rows: pa.Table) -> None:
        # One chunk: where a page ends may depend on how the rows came.
        self._writer.write_table(rows.combine_chunks(), row_group_size=_ROWS_OF_A_GROUP)

    def _unwritten(self, error: OSError) -> UserError:
        return UserError(f"{self._out}: can't be written: {error.strerror or error}; name a file elsewhere")


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _schema(recommender: Recommender, asked: Asked, explain: bool) -> pa.Schema:
    fields = [
        ("user", asked.name_type),
        ("rank", pa.int32()),
        ("item", recommender.run.items.raw_ids.type),
        ("score", pa.float32()),
        ("source", pa.string()),
    ]
    if explain:
        fields += [("log_retrieval", pa.float32())]
        fields += [(f"probability[{task}]", pa.float32()) for task in recommender.tasks]
    return pa.schema(fields)


def _table(schema: pa.Schema, names: pa.Array, lists: Lists, raw_items: pa.Array) -> pa.Table:
    rows, places = (lists.items >= 0).nonzero(as_tuple=True)
    probabilities = lists.probabilities[rows, places].T.numpy()
    columns = [
        names.take(pa.array(rows.numpy())),
        pa.array(places.numpy().astype(np.int32) + 1),
        raw_items.take(pa.array(lists.items[rows, places].numpy())),
        pa.array(lists.scores[rows, places].numpy()),
        pa.array(np.where(lists.from_model[rows].numpy(), "model", "popularity")),
        pa.array(lists.log_retrieval[rows, places].numpy()),
        *(pa.array(values, from_pandas=True) for values in probabilities),
    ]
    return pa.Table.from_arrays([c.cast(f.type) for c, f in zip(columns, schema, strict=False)], schema=schema)
