"""The definition of ``jagged_attention``: one sequence at a time, every score in memory."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from .buckets import time_buckets
from .plan import AttentionPlan


def reference_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan: AttentionPlan,
    *,
    scale: float,
    scaling_length: float | None,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
) -> Tensor:
    """``[Tq, H, D]`` in the dtype of ``q``; arguments as in `jagged_attention`. Memory is heads * length^2.

    ``scaling_length`` None means softmax, a number means silu.
    """
    group_size = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(group_size, dim=1)
    v = v.repeat_interleave(group_size, dim=1)
    bounds = plan.offsets.tolist()
    candidates = [0] * (len(bounds) - 1) if plan.num_candidates is None else plan.num_candidates.tolist()

    query_bounds = bounds if plan.query_offsets is None else plan.query_offsets.tolist()

    outputs = []
    for (start, stop), (first, last), num_candidates in zip(
        pairwise(bounds), pairwise(query_bounds), candidates, strict=True
    ):
        tokens, queries = slice(start, stop), slice(first, last)
        asking = slice(stop - start - (last - first), stop - start)  # the last tokens of the sequence
        position, visible = structure(stop - start, num_candidates, plan.window, q.device)
        visible = visible[asking]
        scores = scale * torch.einsum("ihd,jhd->hij", q[queries], k[tokens])
        if position_bias is not None:
            distance = (position[asking, None] - position[None, :]).clamp(0, position_bias.shape[1] - 1)
            scores = scores + position_bias[:, distance].to(q.dtype)
        if time_bias is not None:
            assert plan.asked is not None
            assert plan.happened is not None
            difference = plan.asked[queries, None] - plan.happened[None, tokens]
            bucket = time_buckets(difference, time_bias.shape[1])
            scores = scores + time_bias[:, bucket].to(q.dtype)
        if scaling_length is not None:
            weights = F.silu(scores).masked_fill(~visible, 0) / scaling_length
        else:
            weights = scores.masked_fill(~visible, -torch.inf).softmax(dim=-1)
        outputs.append(torch.einsum("hij,jhd->ihd", weights, v[tokens]))
    if not outputs:
        tables = [table.sum() for table in (position_bias, time_bias) if table is not None]
        return q + 0 * (k.sum() + v.sum()) + 0 * sum(tables)  # nothing, with a gradient of zero for everyone
    return torch.cat(outputs)


def structure(length: int, num_candidates: int, window: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions ``[length]`` int64 of a sequence's tokens, and ``[length, length]`` bool: query sees key."""
    index = torch.arange(length, device=device)
    history = length - num_candidates
    position = index.clamp(max=history)
    query, key = index[:, None], index[None, :]
    visible = (key <= query) & ((key < history) | (key == query))
    if window is not None:
        visible &= position[:, None] - position[None, :] < window
    return position, visible
