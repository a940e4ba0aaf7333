"""A backbone run over new tokens behind kept keys and values gives what it gives over the whole sequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from unigrf_dist.config.schema import ModelConfig
from unigrf_dist.model.backbone import Backbone, build_backbone
from unigrf_dist.model.kept_keys import NewTokens, new_tokens
from unigrf_dist.model.tokens import TokenLayout
from unigrf_kernels import plan_attention

WIDTH, MAX_TOKENS, CANDIDATES = 12, 12, 3
HISTORY, FRESH = torch.tensor([4, 0, 6, 0]), torch.tensor([2, 2, 0, 0])
"""Tokens of four users that are kept, and that come later: users with both, one of either kind, and none."""
BACKBONES = [
    {"backbone": "hstu", "heads": 2, "head_width": 6},
    {"backbone": "llama", "heads": 4, "key_heads": 2, "head_width": 4},
]


def bounds(lengths: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])


def rows(offsets: Tensor, first: Tensor, count: Tensor) -> Tensor:
    """Packed rows ``first:first + count`` of each sequence."""
    return torch.tensor(
        [
            start + index
            for start, begin, many in zip(offsets[:-1].tolist(), first.tolist(), count.tolist(), strict=True)
            for index in range(begin, begin + many)
        ],
        dtype=torch.int64,
    )


def backbone(changes: dict[str, Any], dtype: torch.dtype) -> Backbone:
    torch.manual_seed(0)
    config = ModelConfig(width=WIDTH, blocks=2, dropout=0.5, time_buckets=40, **changes)
    built = build_backbone(config, max_tokens=MAX_TOKENS, kernel="torch").to(dtype)
    for parameter in built.parameters():
        parameter.data.normal_(std=0.5)
    return built


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("changes", BACKBONES, ids=lambda changes: changes["backbone"])
@torch.no_grad()
def test_history_then_events_then_candidates(
    changes: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    model = backbone(changes, dtype)
    candidates = torch.full_like(HISTORY, CANDIDATES)
    lengths = HISTORY + FRESH + candidates
    offsets = bounds(lengths)
    total = int(lengths.sum())
    tokens = torch.randn(total, WIDTH, dtype=dtype)
    key_times = torch.randint(0, 10_000, (total,)).cumsum(0)
    query_times = key_times + torch.randint(0, 1000, (total,))
    index = torch.cat([torch.arange(length) for length in lengths.tolist()])
    position = torch.minimum(index, (HISTORY + FRESH).repeat_interleave(lengths))
    plan = plan_attention(offsets, num_candidates=candidates, query_times=query_times, key_times=key_times)
    nothing = torch.zeros(0, dtype=torch.int64)
    whole = model(tokens, TokenLayout(index, position, nothing, nothing[None], None, plan), None)

    layout: NewTokens | None = None
    kept = None
    parts = [(0 * HISTORY, HISTORY, None), (HISTORY, FRESH, None), (HISTORY + FRESH, candidates, candidates)]
    for first, count, of_candidates in parts:
        part = rows(offsets, first, count)
        layout = new_tokens(
            kept_offsets=0 * offsets if layout is None else layout.attention.offsets,
            kept_times=nothing if layout is None else layout.attention.key_times,
            offsets=bounds(count),
            query_times=query_times[part],
            key_times=key_times[part],
            num_candidates=of_candidates,
        )
        hidden, kept = model.extend(tokens[part], layout, kept)
        torch.testing.assert_close(hidden, whole[part], rtol=tolerance, atol=tolerance)
