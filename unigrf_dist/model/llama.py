"""Llama backbone (Touvron et al., arXiv 2302.13971), with grouped-query attention (arXiv 2305.13245).

Shapes: ``T`` tokens, ``D`` model width, ``H`` query heads, ``G`` key heads, ``K`` head width, ``F`` feed-forward
width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unigrf_dist.config.schema import ModelConfig
from unigrf_dist.model.bias_table import bias_table
from unigrf_dist.model.flops import attention_flops, projection_flops
from unigrf_dist.model.kept_keys import KeysValues, NewTokens, extend_blocks
from unigrf_dist.model.padded_tokens import PaddedAttention, PaddedTokens, attend
from unigrf_dist.model.tokens import TokenLayout
from unigrf_kernels import AttentionPlan, rms_norm, rotary, seeded_dropout, swiglu

_INIT_STD = 0.02
_SEEDS_PER_BLOCK = 2


class LlamaBlock(nn.Module):
    """``y = x + W_o attention(RMSNorm(x))``, then ``y + W_down (silu(W_gate z) * W_up z)``, ``z = RMSNorm(y)``.

    Queries and keys are turned by their token's position; attention is causal softmax, with the same optional
    bias tables as in HSTU. Dropout falls on what each half adds.
    """

    def __init__(self, config: ModelConfig, *, max_tokens: int, kernel: str) -> None:
        super().__init__()
        width, self.heads, self.head_width = config.width, config.heads, config.head_width
        self.key_heads = config.key_heads or config.heads
        self.dropout, self.kernel = config.dropout, kernel
        inner, shared = self.heads * self.head_width, self.key_heads * self.head_width
        forward_width = config.feedforward_width or default_feedforward_width(width)
        self.splits = (inner, shared, shared)
        self.attention_norm = nn.Parameter(torch.ones(width))
        self.qkv = nn.Parameter(torch.randn(width, sum(self.splits)) * _INIT_STD)
        self.position_bias = bias_table(config.position_bias, config.heads, max_tokens)
        self.time_bias = bias_table(config.time_bias, config.heads, config.time_buckets)
        self.attention_output = nn.Parameter(nn.init.xavier_uniform_(torch.empty(inner, width)))
        self.forward_norm = nn.Parameter(torch.ones(width))
        self.gate_up = nn.Parameter(torch.randn(width, 2 * forward_width) * _INIT_STD)
        self.down = nn.Parameter(nn.init.xavier_uniform_(torch.empty(forward_width, width)))

    def forward(self, x: Tensor, layout: TokenLayout, seed: int | None) -> Tensor:
        """``[T, D]`` → ``[T, D]``."""
        q, keys = self._project(x, layout.token_positions)
        return self._mix(x, self._attend(q, keys, layout.attention), seed)

    def extend(
        self, x: Tensor, layout: NewTokens | PaddedTokens, kept: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        """``[N, D]`` new tokens → ``[N, D]``, and keys and values of kept and new ones; no dropout."""
        q, new = self._project(x, layout.token_positions)
        keys = layout.append(kept, new)
        return self._mix(x, self._attend(q, keys, layout.attention), None), keys

    def _mix(self, x: Tensor, attended: Tensor, seed: int | None) -> Tensor:
        x = x + self._dropped(attended, seed)
        normed = rms_norm(x, self.forward_norm, implementation=self.kernel)
        gate, up = (normed @ self.gate_up).chunk(2, dim=1)
        mixed = swiglu(gate, up, implementation=self.kernel) @ self.down
        return x + self._dropped(mixed, None if seed is None else seed + 1)

    def _project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, KeysValues]:
        """``[T, H, K]`` queries, ``[T, G, K]`` keys and values of ``[T, D]``."""
        projected = rms_norm(x, self.attention_norm, implementation=self.kernel) @ self.qkv
        q, k, v = (part.unflatten(1, (-1, self.head_width)) for part in projected.split(self.splits, dim=1))
        q, k = rotary(q, k, positions, implementation=self.kernel)
        return q, KeysValues(k, v)

    def _attend(self, q: Tensor, keys: KeysValues, plan: AttentionPlan | PaddedAttention) -> Tensor:
        """``[tokens that ask, D]``."""
        attended = attend(
            q,
            keys,
            plan,
            scale=self.head_width**-0.5,
            scaling_length=None,
            position_bias=self.position_bias,
            time_bias=self.time_bias,
            kernel=self.kernel,
        )
        return attended.flatten(1) @ self.attention_output

    def _dropped(self, x: Tensor, seed: int | None) -> Tensor:
        if seed is None:
            return x
        return seeded_dropout(x, dropout=self.dropout, seed=seed, implementation=self.kernel)


class Llama(nn.Module):
    """A stack of Llama blocks and a final RMSNorm."""

    def __init__(self, config: ModelConfig, *, max_tokens: int, kernel: str) -> None:
        super().__init__()
        self.kernel = kernel
        self.blocks = nn.ModuleList(
            LlamaBlock(config, max_tokens=max_tokens, kernel=kernel) for _ in range(config.blocks)
        )
        self.norm = nn.Parameter(torch.ones(config.width))

    def forward(self, tokens: Tensor, layout: TokenLayout, seed: int | None) -> Tensor:
        """``[T, D]`` token vectors → ``[T, D]`` hidden states."""
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, layout, None if seed is None else seed + 1 + index * _SEEDS_PER_BLOCK)
        return rms_norm(tokens, self.norm, implementation=self.kernel)

    def extend(
        self, tokens: Tensor, layout: NewTokens | PaddedTokens, kept: Sequence[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        """As `Backbone.extend`."""
        tokens, keys = extend_blocks(self.blocks, tokens, layout, kept)
        return rms_norm(tokens, self.norm, implementation=self.kernel), keys

    @staticmethod
    def flops(config: ModelConfig, tokens: NDArray[np.float64]) -> float:
        """Forward and backward of all blocks over sequences of ``tokens`` tokens, ``[n]``; see model/flops.py."""
        inner = config.heads * config.head_width
        shared = (config.key_heads or config.heads) * config.head_width
        forward_width = config.feedforward_width or default_feedforward_width(config.width)
        weights = config.width * (2 * inner + 2 * shared) + 3 * config.width * forward_width
        attention = attention_flops(tokens, config.heads, config.head_width)
        return config.blocks * (projection_flops(float(tokens.sum()), weights) + attention)

    @staticmethod
    def problems(config: ModelConfig) -> Iterator[str]:
        """Query heads share key heads evenly; rotary positions turn pairs of values."""
        if config.heads % (config.key_heads or config.heads):
            yield f"model.heads = {config.heads} is no multiple of model.key_heads = {config.key_heads}"
        if config.head_width % 2:
            yield f"model.head_width = {config.head_width} is odd: rotary positions turn pairs; use an even width"


def default_feedforward_width(width: int) -> int:
    """Two thirds of four times the width, as in the paper, rounded up to a multiple of 8."""
    return -(-8 * width // 24) * 8
