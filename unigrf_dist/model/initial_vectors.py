"""Initial vectors of items: a function of the seed and the item's id alone.

So the table is the same on any number of ranks, and a row that is given to another item starts as that item would
have in a table of its own.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

BLOCK_ROWS = 4096
"""Ids drawn together. Each block has its own seed, so that a rank draws only what it holds."""

_CACHE_BYTES = 64 << 20


def drawn_block(block: int, *, width: int, std: float, seed: int) -> Tensor:
    """``[BLOCK_ROWS, width]`` fp32, the vectors of ids ``block * BLOCK_ROWS`` and on."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + block)
    return torch.randn(BLOCK_ROWS, width, generator=generator) * std


class InitialVectors:
    """Initial vectors of single ids. A few blocks are kept: newcomers are often neighbours.

    Args:
        width: columns of a vector.
        std: standard deviation of its values.
        seed: seed of the initial vectors.
    """

    def __init__(self, *, width: int, std: float, seed: int) -> None:
        self._width, self._std, self._seed = width, std, seed
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self._room = max(1, _CACHE_BYTES // (4 * BLOCK_ROWS * width))

    def of(self, ids: np.ndarray) -> Tensor:
        """``[n]`` int64 ids → ``[n, width]`` fp32 on the host."""
        vectors = torch.empty(len(ids), self._width)
        blocks, places = np.divmod(ids, BLOCK_ROWS)
        for block in np.unique(blocks):
            here = torch.from_numpy(np.flatnonzero(blocks == block))
            vectors[here] = self._block(int(block))[torch.from_numpy(places)[here]]
        return vectors

    def _block(self, block: int) -> Tensor:
        if block in self._kept:
            self._kept.move_to_end(block)
            return self._kept[block]
        drawn = drawn_block(block, width=self._width, std=self._std, seed=self._seed)
        self._kept[block] = drawn
        if len(self._kept) > self._room:
            self._kept.popitem(last=False)
        return drawn
