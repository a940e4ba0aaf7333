"""The plain PyTorch path where only the last tokens of each sequence ask: forward only, for inference.

A candidate sees the history and itself, so its scores are one row over the history and one number: the cost grows
with the number of candidates, not with its square. Scores of a sequence are made in blocks of queries that stay in
the cache, all heads at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from .buckets import time_buckets
from .plan import AttentionPlan
from .torch_bias import MASKED
from .torch_schedule import SCORES_PER_BLOCK

MIN_QUERIES_PER_BLOCK = 16
"""Thinner blocks feed GEMM badly, even where a long history makes them larger than the cache."""


def last_tokens_attention(
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
    """``[Tq, H, D]`` in the dtype of ``q``; arguments as in `jagged_attention` with ``query_offsets``."""
    assert plan.query_offsets is not None
    # Half precision is how operands are stored, not what is computed with: CPUs are slow at it.
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    position_bias = None if position_bias is None else position_bias.to(dtype)
    time_bias = None if time_bias is None else time_bias.to(dtype)
    bounds, query_bounds = plan.offsets.tolist(), plan.query_offsets.tolist()
    candidates = [0] * (len(bounds) - 1) if plan.num_candidates is None else plan.num_candidates.tolist()
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for (start, stop), (first, last), count in zip(
        pairwise(bounds), pairwise(query_bounds), candidates, strict=True
    ):
        if first == last:
            continue
        sequence = _Sequence(
            k[start:stop].transpose(0, 1).to(dtype),
            v[start:stop].transpose(0, 1).to(dtype),
            None if plan.happened is None else plan.happened[start:stop],
            stop - start - count,
            plan.window,
            scaling_length,
            position_bias,
            time_bias,
        )
        asked = None if plan.asked is None else plan.asked[first:last]
        queries = q[first:last].transpose(0, 1).to(dtype) * scale  # [H, m, D]
        for rows in sequence.blocks(stop - start - (last - first), stop - start, q.shape[1]):
            # Queries count from the end of their sequence.
            index = slice(rows.start - (stop - start) + last - first, rows.stop - (stop - start) + last - first)
            block = sequence.attend(queries[:, index], rows, None if asked is None else asked[index])
            out[first + index.start : first + index.stop] = block.transpose(0, 1)
    return out


class _Sequence:
    """Keys and values of one sequence, ``[Hkv, length, D]``, and how its scores are made."""

    def __init__(
        self,
        k: Tensor,
        v: Tensor,
        happened: Tensor | None,
        history: int,
        window: int | None,
        scaling_length: float | None,
        position_bias: Tensor | None,
        time_bias: Tensor | None,
    ) -> None:
        self.k, self.v, self.happened, self.history, self.window = k, v, happened, history, window
        self.scaling_length, self.position_bias, self.time_bias = scaling_length, position_bias, time_bias

    def blocks(self, first: int, stop: int, num_heads: int) -> Iterator[range]:
        """Runs of queries, counted from the start of the sequence: of the history, then of the candidates."""
        boundary = min(max(first, self.history), stop)
        size = max(MIN_QUERIES_PER_BLOCK, SCORES_PER_BLOCK // (num_heads * max(1, self.history)))
        for begin, end in ((first, boundary), (boundary, stop)):
            for row in range(begin, end, size):
                yield range(row, min(row + size, end))

    def attend(self, q: Tensor, rows: range, asked: Tensor | None) -> Tensor:
        """``[H, R, D]`` output of scaled queries ``[H, R, D]``: all of the history, or all candidates."""
        num_heads, num_rows, width = q.shape
        num_key_heads = self.k.shape[0]
        are_candidates = rows.start >= self.history
        # A query sees no later key, and a candidate sees itself apart from the history.
        keys = range(self._first_seen(min(rows.start, self.history)), min(rows.stop, self.history))
        matrix = (num_key_heads, num_heads // num_key_heads * num_rows)
        terms = self._terms(rows, keys, asked)
        scores = torch.baddbmm(
            terms.expand(num_heads, num_rows, len(keys)).reshape(*matrix, len(keys)),
            q.reshape(*matrix, width),
            self.k[:, keys.start : keys.stop].transpose(1, 2),
        ).view(num_heads, num_rows, len(keys))
        own = self._own_scores(q, rows, asked) if are_candidates else None
        weights, own = self._weigh_(scores, own)
        out = weights.view(*matrix, len(keys)) @ self.v[:, keys.start : keys.stop]
        out = out.view(num_heads, num_rows, width)
        if own is not None:
            out.addcmul_(own, self._per_query_head(self.v[:, rows.start : rows.stop], num_heads))
        return out if self.scaling_length is None else out.div_(self.scaling_length)

    def _weigh_(self, scores: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weights of keys ``[H, R, C]``, in place, and of candidates for themselves ``[H, R, 1]``.

        silu's still lack the scaling length, by which the smaller output is divided.
        """
        if self.scaling_length is not None:
            return F.silu(scores, inplace=True), None if own is None else F.silu(own)
        if own is None:
            return scores.softmax(2), None
        largest = own if scores.shape[2] == 0 else torch.maximum(scores.amax(2, keepdim=True), own)
        weights, own = scores.sub_(largest).exp_(), (own - largest).exp_()
        sums = weights.sum(2, keepdim=True) + own
        return weights.div_(sums), own / sums

    def _terms(self, rows: range, keys: range, asked: Tensor | None) -> Tensor:
        """``[H or 1, R or 1, C]`` what is added to the products: masks and biases."""
        if rows.start >= self.history:
            # All candidates stand at one position, directly behind the history.
            distance = self.history - torch.arange(keys.start, keys.stop, device=self.k.device)
            terms = self._of_distance(distance)[:, None]
        else:
            # One entry per difference of positions, largest first, so that ascending keys walk forward through it.
            largest, smallest = rows.stop - 1 - keys.start, rows.start - keys.stop + 1
            vector = self._of_distance(torch.arange(largest, smallest - 1, -1, device=self.k.device))
            terms = vector.unfold(-1, len(keys), 1).flip(-2)
        if self.time_bias is not None and asked is not None and self.happened is not None:
            # The candidates of a request carry its time, all the same: then one row serves them all.
            if bool((asked == asked[0]).all()):
                asked = asked[:1]
            difference = asked[:, None] - self.happened[None, keys.start : keys.stop]
            buckets = time_buckets(difference, self.time_bias.shape[1])
            # Four times as fast as indexing with brackets.
            heads = self.time_bias.shape[0]
            terms = terms + self.time_bias.index_select(1, buckets.flatten()).view(heads, *buckets.shape)
        return terms

    def _of_distance(self, distance: Tensor) -> Tensor:
        """``[H or 1, n]`` of ``[n]`` query positions less key positions."""
        if self.position_bias is None:
            bias = self.k.new_zeros(1, distance.numel())
        else:
            bias = self.position_bias[:, distance.clamp(0, self.position_bias.shape[1] - 1)]
        is_masked = distance < 0 if self.window is None else (distance < 0) | (distance >= self.window)
        return bias.masked_fill(is_masked, MASKED)

    def _own_scores(self, q: Tensor, rows: range, asked: Tensor | None) -> Tensor:
        """``[H, R, 1]`` scores of candidates with themselves."""
        own = slice(rows.start, rows.stop)
        scores = (q * self._per_query_head(self.k[:, own], q.shape[0])).sum(2)
        if self.position_bias is not None:
            scores += self.position_bias[:, :1]
        if self.time_bias is not None and asked is not None and self.happened is not None:
            scores += self.time_bias[:, time_buckets(asked - self.happened[own], self.time_bias.shape[1])]
        return scores[..., None]

    def _per_query_head(self, rows: Tensor, num_heads: int) -> Tensor:
        return rows.repeat_interleave(num_heads // rows.shape[0], dim=0)

    def _first_seen(self, position: int) -> int:
        return 0 if self.window is None else max(0, position - self.window + 1)
