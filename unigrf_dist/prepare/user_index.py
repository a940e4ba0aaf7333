"""What an append must know of users: how many events they have, and their last two, which are held out.

With it the training events of items are counted without a look at the histories.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unigrf_dist.data.sequences import IntArray, offsets_of
from unigrf_dist.data.split import has_held_out

SCHEMA = pa.schema(
    [
        (name, pa.int64())
        for name in ("user_id", "num_events", "item_before", "time_before", "last_item", "last_time")
    ]
)
_NO_ITEM, _NO_TIME = -1, np.iinfo(np.int64).min
_ROWS_PER_GROUP = 1 << 17


class UserIndexWriter:
    """Writes the index of users, chunk by chunk.

    Args:
        file: file to write.
    """

    def __init__(self, file: Path) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd", use_dictionary=False)
        self._buffered: list[pa.Table] = []

    def __enter__(self) -> UserIndexWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, user_ids: IntArray, lengths: IntArray, last: IntArray) -> None:
        """Append users.

        Args:
            user_ids: ``[U]`` dense ids, ascending over all calls.
            lengths: ``[U]`` events of each user.
            last: ``[U, 4]`` item and time of the last event but one, and of the last one.
        """
        columns = [user_ids, lengths, *last.T]
        self._buffered.append(pa.Table.from_arrays([pa.array(column) for column in columns], schema=SCHEMA))
        if sum(table.num_rows for table in self._buffered) >= _ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        if self._writer.is_open:
            self._flush()
            self._writer.close()

    def _flush(self) -> None:
        if self._buffered:
            self._writer.write_table(pa.concat_tables(self._buffered), row_group_size=_ROWS_PER_GROUP)
            self._buffered = []


def last_two(lengths: IntArray, items: IntArray, times: IntArray) -> IntArray:
    """``[U, 4]`` item and time of the last event but one, and of the last one, of users with at least one event.

    Args:
        lengths: ``[U]`` events of each user.
        items, times: ``[E]`` their items and times, oldest first within a user.
    """
    last = offsets_of(lengths)[1:] - 1
    before, single = np.maximum(last - 1, 0), lengths < 2
    found = np.stack([items[before], times[before], items[last], times[last]], axis=1)
    found[single, 0], found[single, 1] = _NO_ITEM, _NO_TIME
    return found


def merged_last_two(known: IntArray, new: IntArray) -> IntArray:
    """``[U, 4]`` the last two of all events of ``known`` and ``new`` ``[U, 4]``; known ones come first."""
    events = np.stack([known[:, :2], known[:, 2:], new[:, :2], new[:, 2:]], axis=1)  # [U, 4, 2]
    order = np.argsort(events[:, :, 1], axis=1, kind="stable")[:, -2:]
    return np.take_along_axis(events, order[:, :, None], axis=1).reshape(-1, 4)


def nobody(count: int) -> IntArray:
    """``[count, 4]`` the last two events of users without any."""
    return np.tile(np.array([_NO_ITEM, _NO_TIME]), (count, 2))


def held_out_items(lengths: IntArray, last: IntArray) -> IntArray:
    """Items of the held-out events of users: ``lengths`` ``[U]`` events, the last two in ``last`` ``[U, 4]``."""
    return last[has_held_out(lengths)][:, [0, 2]].reshape(-1)
