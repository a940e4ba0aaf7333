"""The merge of sorted runs: all users of all buckets by ascending raw id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc


def merged(runs: Sequence[Iterable[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
    """Users of all runs by ascending raw id, in batches.

    Args:
        runs: batches of each run, whose first column ascends within the run; no id is in two runs. One batch of
            each is in memory.
    """
    streams = [iter(run) for run in runs]
    heads = {number: head for number, stream in enumerate(streams) if (head := _next(stream)) is not None}
    while heads:
        # Up to the first end of a batch, everything that is to come is known.
        cut = min(head.column(0)[-1].as_py() for head in heads.values())
        ready = []
        for number, head in list(heads.items()):
            count = _num_up_to(head.column(0), cut)
            ready.append(head.slice(0, count))
            if count < head.num_rows:
                heads[number] = head.slice(count)
            elif (following := _next(streams[number])) is not None:
                heads[number] = following
            else:
                del heads[number]
        yield _sorted([part for part in ready if part.num_rows])


def _next(stream: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    return next((batch for batch in stream if batch.num_rows), None)


def _num_up_to(ids: pa.Array, cut: int | str) -> int:
    """Number of the ascending ``ids`` that are not above ``cut``."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if ids[middle].as_py() <= cut:
            low = middle + 1
        else:
            high = middle
    return low


def _sorted(parts: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    if len(parts) == 1:
        return parts[0]
    users = pa.Table.from_batches(parts).combine_chunks().to_batches()[0]
    return users.take(pc.sort_indices(users.column(0)))
