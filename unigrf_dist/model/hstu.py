"""HSTU backbone (Zhai et al., "Actions Speak Louder than Words", arXiv 2402.17152, equations 1-3).

Shapes: ``T`` tokens, ``D`` model width, ``H`` heads, ``K`` head width, ``N = H K``.
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
from unigrf_kernels import AttentionPlan, gated_norm_dropout, norm_project_silu

_INIT_STD = 0.02


class HSTUBlock(nn.Module):
    """``x + W_o dropout(u * LayerNorm(A v))`` with ``u, v, q, k = SiLU(W LayerNorm(x))``.

    ``A = SiLU(q kᵀ + bias_position + bias_time) / scaling_length``, causal; the scaling length is a constant,
    so that an output never depends on who else is in the batch.
    """

    def __init__(self, config: ModelConfig, *, max_tokens: int, kernel: str) -> None:
        super().__init__()
        width, heads, inner = config.width, config.heads, config.heads * config.head_width
        self.heads, self.inner, self.dropout = heads, inner, config.dropout
        self.scaling_length, self.kernel = float(max_tokens), kernel
        self.norm_weight = nn.Parameter(torch.ones(width))
        self.norm_bias = nn.Parameter(torch.zeros(width))
        self.uvqk = nn.Parameter(torch.randn(width, 4 * inner) * _INIT_STD)
        self.position_bias = bias_table(config.position_bias, heads, max_tokens)
        self.time_bias = bias_table(config.time_bias, heads, config.time_buckets)
        self.attention_norm_weight = nn.Parameter(torch.ones(inner))
        self.attention_norm_bias = nn.Parameter(torch.zeros(inner))
        self.output = nn.Parameter(nn.init.xavier_uniform_(torch.empty(inner, width)))

    def forward(self, x: Tensor, layout: TokenLayout, seed: int | None) -> Tensor:
        """``[T, D]`` → ``[T, D]``."""
        u, q, keys = self._project(x)
        return self._mix(x, u, self._attend(q, keys, layout.attention), seed)

    def extend(
        self, x: Tensor, layout: NewTokens | PaddedTokens, kept: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        """``[N, D]`` new tokens → ``[N, D]``, and keys and values of kept and new ones; no dropout."""
        u, q, new = self._project(x)
        keys = layout.append(kept, new)
        return self._mix(x, u, self._attend(q, keys, layout.attention), None), keys

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, KeysValues]:
        """``[T, N]`` gates, ``[T, H, K]`` queries, keys and values of ``[T, D]``."""
        u, v, q, k = norm_project_silu(
            x,
            self.norm_weight,
            self.norm_bias,
            self.uvqk,
            splits=(self.inner,) * 4,
            implementation=self.kernel,
        )
        q, k, v = (part.view(-1, self.heads, self.inner // self.heads) for part in (q, k, v))
        return u, q, KeysValues(k, v)

    def _attend(self, q: Tensor, keys: KeysValues, plan: AttentionPlan | PaddedAttention) -> Tensor:
        """``[tokens that ask, N]``."""
        attended = attend(
            q,
            keys,
            plan,
            scale=1.0,
            scaling_length=self.scaling_length,
            position_bias=self.position_bias,
            time_bias=self.time_bias,
            kernel=self.kernel,
        )
        return attended.flatten(1)

    def _mix(self, x: Tensor, u: Tensor, attended: Tensor, seed: int | None) -> Tensor:
        gated = gated_norm_dropout(
            attended,
            u,
            self.attention_norm_weight,
            self.attention_norm_bias,
            dropout=0.0 if seed is None else self.dropout,
            seed=seed or 0,
            implementation=self.kernel,
        )
        return torch.addmm(x, gated, self.output)


class HSTU(nn.Module):
    """A stack of HSTU blocks."""

    def __init__(self, config: ModelConfig, *, max_tokens: int, kernel: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            HSTUBlock(config, max_tokens=max_tokens, kernel=kernel) for _ in range(config.blocks)
        )

    def forward(self, tokens: Tensor, layout: TokenLayout, seed: int | None) -> Tensor:
        """``[T, D]`` token vectors → ``[T, D]`` hidden states."""
        for index, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, layout, None if seed is None else seed + index)
        return tokens

    def extend(
        self, tokens: Tensor, layout: NewTokens | PaddedTokens, kept: Sequence[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        """As `Backbone.extend`."""
        return extend_blocks(self.blocks, tokens, layout, kept)

    @staticmethod
    def flops(config: ModelConfig, tokens: NDArray[np.float64]) -> float:
        """Forward and backward of all blocks over sequences of ``tokens`` tokens, ``[n]``; see model/flops.py."""
        inner = config.heads * config.head_width
        weights = config.width * 4 * inner + inner * config.width
        attention = attention_flops(tokens, config.heads, config.head_width)
        return config.blocks * (projection_flops(float(tokens.sum()), weights) + attention)

    @staticmethod
    def problems(config: ModelConfig) -> Iterator[str]:
        """HSTU has one width, and a key for every query head."""
        for key in ("key_heads", "feedforward_width"):
            if getattr(config, key) is not None:
                yield f"model.{key} is set, but model.backbone hstu does not have it; remove the key"
