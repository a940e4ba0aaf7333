"""Plain PyTorch path: the hash in int32 arithmetic, in place.

Measured against the mask of ``torch.nn.functional.dropout``, see README.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .constants import GOLDEN_RATIO, HALF_RANGE, MULTIPLIERS, keep_count, keep_scale, signed_word
from .reference import seed_keys

# Two int32 buffers of this many words stay in a core's second-level cache; ten passes run over them.
_CHUNK_WORDS = 1 << 17


def torch_dropout(x: Tensor, *, dropout: float, seed: Tensor) -> Tensor:
    """``reference_dropout`` in few passes."""
    return _SeededDropout.apply(x, dropout, seed)


class _SeededDropout(torch.autograd.Function):
    """Saves the mask, one byte per element: computing it again costs more than reading it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropout: float, seed: Tensor) -> Tensor:
        keep = keep_mask(seed, x.numel(), dropout).view(x.shape)
        ctx.save_for_backward(keep)
        ctx.scale = keep_scale(dropout)
        return masked(x, keep).mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return masked(grad, keep).mul_(ctx.scale), None, None


def masked(x: Tensor, keep: Tensor) -> Tensor:
    """``x * keep``. A product of float and int8 leaves the vector units: it takes twice as long as this."""
    return torch.empty_like(x, memory_format=torch.contiguous_format).copy_(keep).mul_(x)


@torch.library.custom_op("unigrf_kernels::keep_mask", mutates_args=())
def keep_mask(seed: Tensor, numel: int, dropout: float) -> Tensor:
    """``[numel]`` int8, 1 where an element is kept; the bits of ``reference_keep_mask``."""
    num_words = (numel + 1) // 2
    keep = torch.ones(2 * num_words, dtype=torch.int8, device=seed.device)
    threshold = keep_count(dropout) - HALF_RANGE
    if threshold == HALF_RANGE:  # would not fit into the int16 of the comparison; nothing is dropped
        return keep[:numel]
    chunk = min(_CHUNK_WORDS, num_words) if seed.device.type == "cpu" else num_words
    key_0, key_1 = seed_keys(seed)
    steps = torch.arange(chunk, dtype=torch.int32, device=seed.device).mul_(signed_word(GOLDEN_RATIO))
    state, shifted = torch.empty_like(steps), torch.empty_like(steps)
    for start in range(0, num_words, max(chunk, 1)):
        count = min(chunk, num_words - start)
        first = (key_0 + start * GOLDEN_RATIO).to(torch.int32)
        torch.add(steps[:count], first, out=state[:count])
        halves = _hash(state[:count], shifted[:count], key_1.to(torch.int32)).view(torch.int16)
        # Compared in place: a bool result would cost ten times as much, it is not vectorised.
        keep[2 * start : 2 * (start + count)].copy_(halves.lt_(threshold))
    return keep[:numel]


@keep_mask.register_fake
def _(seed: Tensor, numel: int, dropout: float) -> Tensor:
    return seed.new_empty(numel, dtype=torch.int8)


def _hash(state: Tensor, shifted: Tensor, key: Tensor) -> Tensor:
    _fold(state, 16, shifted).mul_(signed_word(MULTIPLIERS[0])).add_(key)
    _fold(state, 15, shifted).mul_(signed_word(MULTIPLIERS[1]))
    return _fold(state, 15, shifted)


def _fold(state: Tensor, shift: int, shifted: Tensor) -> Tensor:
    # int32 shifts copy the sign; the mask makes the shift logical.
    torch.bitwise_right_shift(state, shift, out=shifted)
    return state.bitwise_xor_(shifted.bitwise_and_((1 << (32 - shift)) - 1))
