"""``Sequences``: event sequences of many users in numpy, sliced and regrouped without a loop over users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from unigrf_dist.data.batch import JaggedBatch

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """Event sequences of ``U`` users, packed end to end: ``JaggedBatch`` in numpy, in the types of the shards.

    Attributes:
        user_ids: ``[U]`` int64.
        offsets: ``[U + 1]`` int64, starts at 0.
        item_ids: ``[E]`` int64.
        behaviours: ``[E]`` int16.
        timestamps: ``[E]`` int64, seconds.
        user_features: ``[U, F]`` int32 codes of side features; None unless requested.
        news: ``[U, 2]`` int64, what days that were appended brought: position of a user's first event that was no
            training event before, and of the first one behind all that were there; None unless requested.
    """

    user_ids: IntArray
    offsets: IntArray
    item_ids: IntArray
    behaviours: NDArray[np.int16]
    timestamps: IntArray
    user_features: NDArray[np.int32] | None = None
    news: IntArray | None = None

    @property
    def num_users(self) -> int:
        """``U``."""
        return len(self.user_ids)

    @property
    def lengths(self) -> IntArray:
        """``[U]`` int64, events of each user."""
        return np.diff(self.offsets)

    def cut(self, users: IntArray | slice, starts: IntArray, stops: IntArray) -> Sequences:
        """The events ``starts[n]:stops[n]`` of each user ``users[n]``.

        Args:
            users: ``[N]`` int64 indices of users, or a slice of them.
            starts, stops: ``[N]`` int64 positions inside each user's sequence.
        """
        first = self.offsets[:-1][users]
        offsets, index = ragged_index(first + starts, first + stops)
        return Sequences(
            self.user_ids[users],
            offsets,
            self.item_ids[index],
            self.behaviours[index],
            self.timestamps[index],
            None if self.user_features is None else self.user_features[users],
            None if self.news is None else (self.news[users] - starts[:, None]).clip(0, (stops - starts)[:, None]),
        )

    def take(self, users: IntArray | slice) -> Sequences:
        """The whole sequences of ``users``, in that order."""
        lengths = self.lengths[users]
        return self.cut(users, np.zeros_like(lengths), lengths)

    def to_batch(self) -> JaggedBatch:
        """The same sequences as CPU tensors; all integers become int64."""
        codes = self.user_features
        return JaggedBatch(
            item_ids=torch.from_numpy(self.item_ids),
            behaviours=torch.from_numpy(self.behaviours.astype(np.int64)),
            timestamps=torch.from_numpy(self.timestamps),
            offsets=torch.from_numpy(self.offsets),
            user_ids=torch.from_numpy(self.user_ids),
            user_features=None if codes is None else torch.from_numpy(codes.astype(np.int64)),
        )


def ragged_index(starts: IntArray, stops: IntArray) -> tuple[IntArray, IntArray]:
    """The ranges ``starts[n]:stops[n]`` of indices, packed end to end.

    Returns:
        offsets ``[N + 1]`` of the ranges, and the indices ``[E]``; both int64.
    """
    lengths = stops - starts
    offsets = offsets_of(lengths)
    index = np.repeat(starts - offsets[:-1], lengths)
    index += np.arange(offsets[-1])
    return offsets, index


def offsets_of(lengths: IntArray) -> IntArray:
    """``[N + 1]`` int64 running sums of ``lengths`` ``[N]``, starting at 0."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def concatenate(parts: Sequence[Sequences]) -> Sequences:
    """All users of ``parts``, in order. ``parts`` must not be empty."""
    if len(parts) == 1:
        return parts[0]
    codes = [part.user_features for part in parts if part.user_features is not None]
    news = [part.news for part in parts if part.news is not None]
    return Sequences(
        np.concatenate([part.user_ids for part in parts]),
        offsets_of(np.concatenate([part.lengths for part in parts])),
        np.concatenate([part.item_ids for part in parts]),
        np.concatenate([part.behaviours for part in parts]),
        np.concatenate([part.timestamps for part in parts]),
        np.concatenate(codes) if codes else None,
        np.concatenate(news) if news else None,
    )
