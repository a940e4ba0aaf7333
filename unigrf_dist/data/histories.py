"""Whole histories of chosen users, found by the raw ids that the data set was made from."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unigrf_dist.data.dataset import Dataset, RowGroupReader, RowGroups
from unigrf_dist.data.sequences import IntArray, Sequences, concatenate, offsets_of

NOBODY = -1
"""Dense id of a user that the data set does not have."""


class UserHistories:
    """The users of a data set with all their events. Not thread-safe.

    Args:
        dataset: data set to read; its raw user ids are held in memory once they are asked for.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset, self._reader = dataset, RowGroupReader(dataset)
        self._groups = RowGroups.of(dataset.manifest)
        self._offsets = offsets_of(self._groups.num_users)
        self._raw_ids: pa.Array | None = None
        self._last: tuple[int, Sequences] | None = None

    def raw_ids(self) -> pa.Array:
        """``[num_users]`` int64 or string, the raw id of every dense user id.

        Raises:
            UserError: a shard cannot be read, or does not match the manifest.
        """
        if self._raw_ids is None:
            parts = [self._reader.raw_user_ids(shard) for shard in range(len(self._dataset.manifest.shards))]
            self._raw_ids = pa.chunked_array(parts).combine_chunks()
        return self._raw_ids

    def find(self, raw_ids: pa.Array) -> IntArray:
        """``[N]`` int64 dense ids of users by raw id; ``NOBODY`` where the data set has no such user."""
        known = self.raw_ids()
        return pc.index_in(raw_ids.cast(known.type), value_set=known).fill_null(NOBODY).to_numpy().astype(np.int64)

    def read(self, users: IntArray) -> Sequences:
        """All events of the users with these dense ids, in the order of ``users``, of which there must be some.

        Raises:
            UserError: a shard cannot be read, or does not match the manifest.
        """
        group_of_user = np.searchsorted(self._offsets, users, side="right") - 1
        parts, places = [], []
        for group in np.unique(group_of_user):
            here = np.flatnonzero(group_of_user == group)
            parts.append(self._group(int(group)).take(users[here] - self._offsets[group]))
            places.append(here)
        # Read group by group; this puts each user back to its place.
        return concatenate(parts).take(np.argsort(np.concatenate(places)))

    def _group(self, group: int) -> Sequences:
        # Neighbouring requests mostly share a row group.
        if self._last is None or self._last[0] != group:
            read = self._reader.read(int(self._groups.shard[group]), int(self._groups.group[group]))
            self._last = (group, read)
        return self._last[1]
