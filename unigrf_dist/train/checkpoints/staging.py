"""Host memory that a checkpoint is copied to before it is written, so that training goes on meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unigrf_dist.train.checkpoints.blocks import Block


class Staging:
    """Buffers of the size of this rank's part of a checkpoint, kept from one save to the next.

    Fresh memory costs more than the copy into it; what lies on a GPU is copied to pinned memory.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, int, int], Tensor] = {}

    def copies(self, blocks: Sequence[Block]) -> list[Block]:
        """Copies of ``blocks``; those of an earlier call are overwritten."""
        copied = [replace(block, values=self._buffer(block).copy_(block.values.detach())) for block in blocks]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return copied

    def _buffer(self, block: Block) -> Tensor:
        key, values = (block.name, block.first_row, block.first_column), block.values
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape != values.shape or buffer.dtype != values.dtype:
            buffer = torch.empty(values.shape, dtype=values.dtype, pin_memory=values.is_cuda)
            self._buffers[key] = buffer
        return buffer
