"""Days that were appended to a data set: their events are merged with those of the shards as row groups are read.

A delta file holds the later events of users of one shard, in row groups by ascending user. Between events of one
time those of the shard come first, then the days in their order.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unigrf_dist.data.integrity import verify_file
from unigrf_dist.data.manifest import DeltaRecord, Manifest
from unigrf_dist.data.sequences import IntArray, Sequences, offsets_of, ragged_index
from unigrf_dist.data.split import num_training_events

COLUMNS = ("user_id", "item_ids", "behaviours", "timestamps")


class DeltaReader:
    """The deltas of a data set. Not thread-safe.

    Args:
        folder: folder of the data set.
        manifest: its manifest.
        known_days: days that count as known; where it is given, sequences say which events came later.
    """

    def __init__(self, folder: Path, manifest: Manifest, known_days: int | None = None) -> None:
        self._folder, self._manifest, self._known_days = folder, manifest, known_days
        self._of_shard: dict[int, list[DeltaRecord]] = defaultdict(list)
        for record in sorted(manifest.deltas, key=lambda each: each.day):
            self._of_shard[record.shard].append(record)

    def open(self, shard: int) -> list[DeltaFile]:
        """The deltas of a shard, day by day.

        Raises:
            OSError, ValueError, pa.ArrowException: a file cannot be read, or is not what was written.
        """
        return [DeltaFile(self._folder / record.file, record) for record in self._of_shard[shard]]

    def merged(self, sequences: Sequences, files: list[DeltaFile], shard: int) -> Sequences:
        """The users of a row group with the events of all days.

        Args:
            sequences: what the shard holds.
            files: the deltas of the shard.
            shard: index of the shard.

        Raises:
            OSError, ValueError, pa.ArrowException: a delta cannot be read.
        """
        first = int(sequences.user_ids[0])
        parts = [part for file in files for part in file.read(first, int(sequences.user_ids[-1]))]
        if self._known_days is None:
            return _merge(sequences, parts)[0] if parts else sequences
        whole, days = _merge(sequences, parts)
        days[days == 0] = self._manifest.shards[shard].day
        return _with_news(whole, days <= self._known_days)


class DeltaFile:
    """One delta file, of which row groups are read by their users."""

    def __init__(self, path: Path, record: DeltaRecord) -> None:
        self.path, self.day = path, record.day
        verify_file(path, record)
        self._file = pq.ParquetFile(path)
        if self._file.metadata.num_rows != record.num_users:
            raise ValueError(f"{self._file.metadata.num_rows} users, but the manifest says {record.num_users}")
        statistics = [
            self._file.metadata.row_group(group).column(0).statistics for group in range(self._file.num_row_groups)
        ]
        self._bounds = [(each.min, each.max) for each in statistics]
        self._last: tuple[int, Sequences] | None = None

    def close(self) -> None:
        self._file.close()

    def read(self, first: int, last: int) -> list[tuple[int, Sequences]]:
        """The day and the events of the users from ``first`` to ``last``; of each row group that has some."""
        parts = []
        for group, (least, most) in enumerate(self._bounds):
            if most < first or least > last:
                continue
            found = self._group(group)
            begin, end = np.searchsorted(found.user_ids, (first, last + 1))
            if begin < end:
                parts.append((self.day, found.take(slice(int(begin), int(end)))))
        return parts

    def _group(self, group: int) -> Sequences:
        # The next row group of the shard mostly begins where this one ends.
        if self._last is None or self._last[0] != group:
            table = self._file.read_row_group(group, columns=list(COLUMNS), use_threads=False)
            users, items, behaviours, times = (table.column(name).combine_chunks() for name in COLUMNS)
            self._last = (
                group,
                Sequences(
                    users.to_numpy(),
                    items.offsets.to_numpy().astype(np.int64),
                    items.values.to_numpy(),
                    behaviours.values.to_numpy(),
                    times.values.to_numpy(),
                ),
            )
        return self._last[1]


def _merge(base: Sequences, parts: list[tuple[int, Sequences]]) -> tuple[Sequences, IntArray]:
    """The users of ``base`` with the events of ``parts`` by time, and ``[E]`` the day of each; 0 for the base."""
    lengths, rows = base.lengths.copy(), []
    for _, part in parts:
        rows.append(part.user_ids - base.user_ids[0])
        lengths[rows[-1]] += part.lengths
    offsets = offsets_of(lengths)
    merged = Sequences(
        base.user_ids,
        offsets,
        np.empty(offsets[-1], base.item_ids.dtype),
        np.empty(offsets[-1], base.behaviours.dtype),
        np.empty(offsets[-1], base.timestamps.dtype),
        base.user_features,
    )
    days = np.zeros(offsets[-1], np.int64)
    filled = offsets[:-1].copy()
    everyone = np.arange(base.num_users)
    for day, part, users in [(0, base, everyone), *((day, p, r) for (day, p), r in zip(parts, rows, strict=True))]:
        _, places = ragged_index(filled[users], filled[users] + part.lengths)
        merged.item_ids[places], merged.behaviours[places] = part.item_ids, part.behaviours
        merged.timestamps[places], days[places] = part.timestamps, day
        filled[users] += part.lengths
    return _sorted_by_time(merged, days)


def _sorted_by_time(sequences: Sequences, days: IntArray) -> tuple[Sequences, IntArray]:
    """Put late events where their time belongs; events of one time keep their order."""
    times, offsets = sequences.timestamps, sequences.offsets
    backward = np.flatnonzero(np.diff(times) < 0) + 1
    backward = backward[~np.isin(backward, offsets)]
    users = np.unique(np.searchsorted(offsets, backward, side="right") - 1)
    if not len(users):
        return sequences, days
    of_users, events = ragged_index(offsets[:-1][users], offsets[1:][users])
    owner = np.repeat(np.arange(len(users)), np.diff(of_users))
    order = events[np.lexsort((times[events], owner))]
    for values in (sequences.item_ids, sequences.behaviours, sequences.timestamps, days):
        values[events] = values[order]
    return sequences, days


def _with_news(sequences: Sequences, known: NDArray[np.bool_]) -> Sequences:
    """``sequences`` with their ``news``; ``known`` says of each event whether it was there before the new days."""
    offsets, lengths = sequences.offsets, sequences.lengths
    owner = np.repeat(np.arange(sequences.num_users), lengths)
    places = np.arange(len(known)) - offsets[owner]
    num_known = np.bincount(owner, known, minlength=sequences.num_users).astype(np.int64)
    nth_known = np.cumsum(known) - 1 - (offsets_of(num_known)[:-1])[owner]
    news = np.zeros((sequences.num_users, 2), np.int64)
    # Behind the last known event, and from the first one that was held out.
    np.maximum.at(news[:, 1], owner[known], places[known] + 1)
    news[:, 0] = news[:, 1]
    first_held_out = known & (nth_known == num_training_events(num_known)[owner])
    news[owner[first_held_out], 0] = places[first_held_out]
    return Sequences(
        sequences.user_ids,
        offsets,
        sequences.item_ids,
        sequences.behaviours,
        sequences.timestamps,
        sequences.user_features,
        news,
    )
