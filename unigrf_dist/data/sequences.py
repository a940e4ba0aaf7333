"""``Sequences``: event sequences of many users in numpy, cut and regrouped without a loop over users."""

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
    """What ``JaggedBatch`` is to torch, with behaviours in their two bytes of storage.

    Attributes:
        user_ids: ``[U]`` int64.
        offsets: ``[U + 1]`` int64, starts at 0.
        item_ids: ``[E]`` int64.
        behaviours: ``[E]`` int16.
        timestamps: ``[E]`` int64, seconds.
        user_features: ``[U, F]`` int32 codes of side features; None if none are asked for.
    """

    user_ids: IntArray
    offsets: IntArray
    item_ids: IntArray
    behaviours: NDArray[np.int16]
    timestamps: IntArray
    user_features: NDArray[np.int32] | None = None

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def lengths(self) -> IntArray:
        return np.diff(self.offsets)

    def cut(self, users: IntArray | slice, starts: IntArray, stops: IntArray) -> Sequences:
        """Of each of ``users`` the events ``starts:stops``, positions inside that user's sequence."""
        first = self.offsets[:-1][users]
        offsets, index = ragged_index(first + starts, first + stops)
        return Sequences(
            self.user_ids[users],
            offsets,
            self.item_ids[index],
            self.behaviours[index],
            self.timestamps[index],
            None if self.user_features is None else self.user_features[users],
        )

    def take(self, users: IntArray | slice) -> Sequences:
        """The whole sequences of ``users``, in that order."""
        lengths = self.lengths[users]
        return self.cut(users, np.zeros_like(lengths), lengths)

    def to_batch(self) -> JaggedBatch:
        """The same as CPU tensors."""
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
    """Offsets ``[N + 1]`` and indices of the ranges ``starts:stops`` laid end to end."""
    lengths = stops - starts
    offsets = offsets_of(lengths)
    index = np.repeat(starts - offsets[:-1], lengths)
    index += np.arange(offsets[-1])
    return offsets, index


def offsets_of(lengths: IntArray) -> IntArray:
    """``[N + 1]`` int64 running sums that start at 0."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def concatenate(parts: Sequence[Sequences]) -> Sequences:
    """All users of ``parts``, in order. At least one part."""
    if len(parts) == 1:
        return parts[0]
    codes = [part.user_features for part in parts if part.user_features is not None]
    return Sequences(
        np.concatenate([part.user_ids for part in parts]),
        offsets_of(np.concatenate([part.lengths for part in parts])),
        np.concatenate([part.item_ids for part in parts]),
        np.concatenate([part.behaviours for part in parts]),
        np.concatenate([part.timestamps for part in parts]),
        np.concatenate(codes) if codes else None,
    )
