"""Tokens of users side by side in a rectangle, for graphs that are exported: no size depends on the data.

Blocks run over them through ``extend``, as over packed tokens: what differs is how keys are kept and how attention
looks. Equal to ``jagged_attention`` where there is a token, arbitrary where there is none.

Shapes: ``B`` users, ``N`` new tokens of each, ``P`` kept ones, ``T = P + N``; ``H`` query heads, ``G`` key heads,
``K`` head width. Sizes along ``B``, ``N`` and ``T`` that are 1 stand for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import silu

from unigrf_dist.model.kept_keys import KeysValues
from unigrf_kernels import AttentionPlan, jagged_attention
from unigrf_kernels.ops.jagged_attention.buckets import bounded_times, time_buckets


@dataclass(frozen=True)
class PaddedAttention:
    """Which tokens attend to which.

    Attributes:
        visible: ``[B, N, T]`` bool, whether a token sees a key.
        distances: ``[B, N, T]`` int64, positions between a token and a key.
        differences: ``[B, N, T]`` int64, seconds between the moment that a token asks for and that of a key.
    """

    visible: Tensor
    distances: Tensor
    differences: Tensor

    @property
    def sizes(self) -> tuple[int, int]:
        """``B`` and ``N``."""
        return self.differences.shape[0], self.visible.shape[1]


@dataclass(frozen=True)
class PaddedTokens:
    """Where new tokens stand behind the kept ones, as `kept_keys.NewTokens`.

    Attributes:
        token_positions: ``[B N]`` int64, index of each new token in its sequence.
        attention: over all tokens, with the new ones as queries.
    """

    token_positions: Tensor
    attention: PaddedAttention

    def append(self, kept: KeysValues | None, new: KeysValues) -> KeysValues:
        """``[B, T, G, K]`` keys and values of ``[B, P, G, K]`` kept and ``[B N, G, K]`` new tokens."""
        fresh = [part.reshape(*self.attention.sizes, *part.shape[1:]) for part in new]
        if kept is None:
            return KeysValues(*fresh)
        return KeysValues(*(torch.cat(pair, dim=1) for pair in zip(kept, fresh, strict=True)))


def history_tokens(times: Tensor, query_times: Tensor) -> PaddedTokens:
    """Tokens of histories, with nothing before them. Padding stands at the end, where no earlier token sees it.

    Args:
        times: ``[B, N]`` int64, seconds: times of the tokens' events.
        query_times: ``[B, N]`` int64, seconds: the moments for which they predict.
    """
    index = torch.arange(times.shape[1], device=times.device)
    distances = (index[:, None] - index)[None]
    attention = PaddedAttention(distances >= 0, distances, _differences(query_times, times))
    return PaddedTokens(index.expand_as(times).flatten(), attention)


def candidate_tokens(times: Tensor, lengths: Tensor, asked: Tensor, num_candidates: int) -> PaddedTokens:
    """Candidates behind kept histories: each sees the history and itself, at the moment of the request.

    Args:
        times: ``[B, P]`` int64, seconds: times of the kept tokens' events, padded.
        lengths: ``[B]`` int64, kept tokens of each user that are no padding.
        asked: ``[B]`` int64, seconds: the moment of each request.
        num_candidates: ``N``.
    """
    num_kept = times.shape[1]
    kept = torch.arange(num_kept, device=times.device)
    own = torch.eye(num_candidates, dtype=torch.bool, device=times.device)
    before = (kept < lengths[:, None])[:, None].expand(-1, num_candidates, -1)
    visible = torch.cat([before, own.expand(times.shape[0], -1, -1)], dim=2)
    moments = asked[:, None].expand(-1, num_candidates)
    # Candidates stand at the position after the history, and so do their keys.
    distances = torch.cat([lengths[:, None] - kept, torch.zeros_like(moments)], dim=1)[:, None]
    attention = PaddedAttention(visible, distances, _differences(asked[:, None], torch.cat([times, moments], 1)))
    return PaddedTokens(lengths[:, None].expand(-1, num_candidates).flatten(), attention)


def attend(
    q: Tensor,
    keys: KeysValues,
    plan: AttentionPlan | PaddedAttention,
    *,
    scale: float,
    scaling_length: float | None,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    kernel: str,
) -> Tensor:
    """``[tokens that ask, H, K]``: what every backbone attends with, over packed tokens or padded ones.

    Args:
        q: ``[tokens that ask, H, K]``.
        keys: keys and values, packed or padded as the plan is.
        plan: which tokens attend to which.
        scale: factor of the scores.
        scaling_length: divisor of SiLU attention; None for softmax.
        position_bias: ``[H, distances]`` or None.
        time_bias: ``[H, buckets]`` or None.
        kernel: implementation over packed tokens.
    """
    if isinstance(plan, PaddedAttention):
        return _padded(q, keys, plan, scale, scaling_length, position_bias, time_bias)
    return jagged_attention(
        q,
        keys.k,
        keys.v,
        plan.offsets,
        activation="softmax" if scaling_length is None else "silu",
        scale=scale,
        scaling_length=scaling_length,
        position_bias=position_bias,
        time_bias=time_bias,
        plan=plan,
        implementation=kernel,
    )


def _padded(
    q: Tensor,
    keys: KeysValues,
    plan: PaddedAttention,
    scale: float,
    scaling_length: float | None,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
) -> Tensor:
    queries = q.reshape(*plan.sizes, *q.shape[1:])
    shared = q.shape[1] // keys.k.shape[2]
    k, v = (part[:, :, :, None].expand(-1, -1, -1, shared, -1).flatten(2, 3) for part in keys)
    scores = scale * torch.einsum("bihd,bjhd->bhij", queries, k)
    if position_bias is not None:
        rows = plan.distances.clamp(0, position_bias.shape[1] - 1)
        scores = scores + position_bias[:, rows].transpose(0, 1)
    if time_bias is not None:
        scores = scores + time_bias[:, time_buckets(plan.differences, time_bias.shape[1]).long()].transpose(0, 1)
    hidden = ~plan.visible[:, None]
    if scaling_length is None:
        weights = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)
    else:
        weights = silu(scores).masked_fill(hidden, 0.0) / scaling_length
    return torch.einsum("bhij,bjhd->bihd", weights, v).flatten(0, 1)


def _differences(asked: Tensor, happened: Tensor) -> Tensor:
    return bounded_times(asked)[:, :, None] - bounded_times(happened)[:, None, :]
