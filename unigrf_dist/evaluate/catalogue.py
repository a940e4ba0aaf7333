"""The whole catalogue ranked for every query, each item's vector staying on the rank that holds it.

Legend: ``Q`` queries of all ranks, ``n`` this rank's own, ``D`` width, ``C`` items of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.fixed_point import exact_norms, from_fixed_point, to_fixed_point
from unigrf_dist.evaluate.metrics import rank_from_counts
from unigrf_dist.evaluate.sharded_scores import SMALLEST_NORM, ShardedScores
from unigrf_dist.evaluate.top_k import NOTHING, RunningTopK, merge_top_k
from unigrf_dist.model.table_shard import TableShard
from unigrf_dist.ranks.collective import Collective


@dataclass(frozen=True)
class _Queries:
    """The queries of all ranks, and which of them are this rank's own."""

    fixed: Tensor  # [Q, D] fixed point
    norms: Tensor  # [Q] float64
    own: slice


@dataclass(frozen=True)
class Found:
    """The ``k`` best items of ``n`` queries, best first; equal scores by lowest id.

    Attributes:
        ids: ``[n, k]`` int64; -1 where fewer than ``k`` items are left.
        scores: ``[n, k]`` float64, dot product, or cosine when normalised; -inf where there is no item.
        log_probabilities: ``[n, k]`` float64, natural logarithm of each item's share in a softmax over all items
            that were not excluded; NaN where there is no item at all, -inf where there is none at this place.
    """

    ids: Tensor
    scores: Tensor
    log_probabilities: Tensor


class ShardedCatalogue:
    """All items as candidates. Every method is collective: all ranks call it, with any number of queries.

    Scores are fixed-point dot products (see ``fixed_point``), so ranks and lists are the same bits on any
    number of ranks and for any way of cutting the table. The weights must not change while the object lives.

    Args:
        shards: this rank's rectangles; those of all ranks together cover the table once.
        num_items: rows of the table.
        dim: columns that count; what a shard holds beyond is padding.
        normalize: compare L2-normalised vectors, as the loss does.
        group: ranks that share the table; all ranks if None.
        chunk_bytes: memory for the scores of one chunk of items.

    Raises:
        ValueError: the shards do not cover the table once.
    """

    def __init__(
        self,
        shards: Sequence[TableShard],
        *,
        num_items: int,
        dim: int,
        normalize: bool,
        group: dist.ProcessGroup | None = None,
        chunk_bytes: int = 64 << 20,
    ) -> None:
        self.num_items, self.dim = num_items, dim
        self._ranks = Collective(group)
        self._items = ShardedScores(
            shards,
            num_items=num_items,
            dim=dim,
            normalize=normalize,
            ranks=self._ranks,
            chunk_bytes=chunk_bytes,
        )

    @torch.no_grad()
    def target_ranks(
        self,
        queries: Tensor,
        target_ids: Tensor,
        seen_item_ids: Tensor,
        seen_offsets: Tensor,
        *,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Rank of each query's target among all items but the query's seen ones.

        The target itself stays a candidate even if it was seen. Items with exactly the target's score count
        half, rounded up (``rank_from_counts``).

        Args:
            queries: ``[n, D]`` floating point, this rank's.
            target_ids: ``[n]`` int64.
            seen_item_ids: ``[s]`` int64, duplicates allowed.
            seen_offsets: ``[n + 1]`` int64; query ``i`` has seen ``seen_item_ids[offsets[i]:offsets[i + 1]]``.
            allowed: ``[num_items]`` bool, the items that are candidates at all, the same on every rank; None for
                all. A target that is not allowed is ranked among them all the same.

        Returns:
            ``[n]`` int64, 1 is best.
        """
        everyone = self._gather(queries)
        targets = torch.cat(self._ranks.gather_rows(target_ids.to(queries.device)))
        if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < self.num_items:
            raise ValueError(f"target_ids must lie in [0, {self.num_items})")
        seen = self._hidden_items(everyone, seen_item_ids, seen_offsets)
        target_scores = self._items.of_items(everyone.fixed, targets)[:, None]
        better, equal = torch.zeros_like(targets), torch.zeros_like(targets)
        for first, scores in self._items.chunks(everyone.fixed):
            seen.hide(first, scores)
            _hide_others(allowed, first, scores)
            here = ((targets >= first) & (targets < first + scores.shape[1])).nonzero()[:, 0]
            scores[here, targets[here] - first] = -torch.inf
            better += (scores > target_scores).sum(1)
            equal += (scores == target_scores).sum(1)
        if not self._items.split_by_columns:
            self._ranks.sum(better)
            self._ranks.sum(equal)
        return rank_from_counts(better, equal)[everyone.own]

    @torch.no_grad()
    def top_k(
        self, queries: Tensor, k: int, exclude_item_ids: Tensor, exclude_offsets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The ``k`` best items of the whole catalogue, best first; equal scores by lowest id.

        Args:
            queries: ``[n, D]`` floating point, this rank's.
            k: length of the lists, the same on every rank.
            exclude_item_ids: ``[s]`` int64, items that must not appear, duplicates allowed.
            exclude_offsets: ``[n + 1]`` int64, as in ``target_ranks``.

        Returns:
            ids ``[n, k]`` int64 and scores ``[n, k]`` float64 (dot product, or cosine when normalised). Where
            fewer than ``k`` items are left, id -1 with score -inf.
        """
        found = self.search(queries, k, exclude_item_ids, exclude_offsets, temperature=1.0)
        return found.ids, found.scores

    @torch.no_grad()
    def search(
        self,
        queries: Tensor,
        k: int,
        exclude_item_ids: Tensor,
        exclude_offsets: Tensor,
        *,
        temperature: float,
        allowed: Tensor | None = None,
    ) -> Found:
        """As ``top_k``, and what a softmax over all items that are not excluded makes of the scores.

        Args:
            queries, k, exclude_item_ids, exclude_offsets: as in ``top_k``.
            temperature: the scores are divided by it in the softmax, as in the loss.
            allowed: ``[num_items]`` bool, the items that may appear at all, the same on every rank; None for all.
        """
        everyone = self._gather(queries)
        excluded = self._hidden_items(everyone, exclude_item_ids, exclude_offsets)
        unit = self._query_unit(everyone.norms)[:, None]  # [Q, 1]
        best = RunningTopK(everyone.norms.numel(), k, queries.device)
        mass = torch.full_like(everyone.norms, -torch.inf)
        for first, scores in self._items.chunks(everyone.fixed):
            excluded.hide(first, scores)
            _hide_others(allowed, first, scores)
            best.add(first, scores)
            mass = torch.logaddexp(mass, (_values(scores, unit) / temperature).logsumexp(1))
        scores, ids = best.scores, best.ids
        if not self._items.split_by_columns:
            lists = [torch.cat(self._ranks.gather_rows(each[None])) for each in (scores, ids)]
            scores, ids = merge_top_k(*lists)
            mass = torch.cat(self._ranks.gather_rows(mass[None])).logsumexp(0)
        own = everyone.own
        scores, ids = scores[own], ids[own].masked_fill(scores[own] == -torch.inf, NOTHING)
        values = _values(scores, unit[own])
        return Found(ids, values, values / temperature - mass[own, None])

    @torch.no_grad()
    def log_probabilities(self, queries: Tensor, item_ids: Tensor, *, temperature: float) -> Tensor:
        """``[n, m]`` float64, natural logarithm of given items' shares in a softmax over the whole catalogue.

        Args:
            queries: ``[n, D]`` floating point, this rank's.
            item_ids: ``[n, m]`` int64; ``m`` is the same on every rank.
            temperature: the scores are divided by it in the softmax, as in the loss.
        """
        nothing = item_ids.new_zeros(len(queries) + 1)
        best = self.search(queries, 1, item_ids.new_zeros(0), nothing, temperature=temperature)
        mass = best.scores / temperature - best.log_probabilities  # [n, 1]
        everyone = self._gather(queries)
        wanted = torch.cat(self._ranks.gather_rows(item_ids))
        columns = [self._items.of_items(everyone.fixed, column) for column in wanted.unbind(1)]
        scores = torch.stack(columns, dim=1) if columns else queries.new_zeros(len(wanted), 0, dtype=torch.float64)
        values = _values(scores, self._query_unit(everyone.norms)[:, None])
        return values[everyone.own] / temperature - mass

    def _gather(self, queries: Tensor) -> _Queries:
        parts = self._ranks.gather_rows(queries)
        before = sum(part.shape[0] for part in parts[: self._ranks.rank])
        vectors = torch.cat(parts)
        if not bool(vectors.isfinite().all()):
            raise UserError("hidden states hold NaN or infinity: training diverged; take an earlier checkpoint")
        (norms,) = exact_norms([vectors], self.dim)
        # A positive factor per query changes no rank, so every query is brought to length 1.
        fixed = to_fixed_point(vectors, torch.where(norms > 0, norms, 1.0))
        return _Queries(fixed, norms, slice(before, before + queries.shape[0]))

    def _query_unit(self, norms: Tensor) -> Tensor:
        """What a query of length 1 in fixed point stands for, items included."""
        if self._items.normalize:
            return norms / norms.clamp_min(SMALLEST_NORM)
        return norms * self._items.unit(norms.device)

    def _hidden_items(self, everyone: _Queries, item_ids: Tensor, offsets: Tensor) -> _HiddenItems:
        device = everyone.fixed.device
        own = torch.arange(everyone.own.start, everyone.own.stop, device=device)
        rows = own.repeat_interleave(offsets.to(device).diff())
        gathered = (torch.cat(self._ranks.gather_rows(each)) for each in (item_ids.to(device), rows))
        return _HiddenItems(*gathered)


def _values(scores: Tensor, unit: Tensor) -> Tensor:
    """Scores as numbers; what is hidden stays at -inf, also for a query of zeros, whose unit is 0."""
    return torch.where(scores == -torch.inf, scores, from_fixed_point(scores) * unit)


def _hide_others(allowed: Tensor | None, first: int, scores: Tensor) -> None:
    """Put the items from ``first`` on that are not allowed last in ``scores [Q, C]``, in place."""
    if allowed is not None:
        scores.masked_fill_(~allowed[first : first + scores.shape[1]], -torch.inf)


class _HiddenItems:
    """Items that are no candidates of a query.

    Args:
        item_ids: ``[s]`` int64, in any order.
        rows: ``[s]`` int64, whose items they are.
    """

    def __init__(self, item_ids: Tensor, rows: Tensor) -> None:
        self._items, order = item_ids.sort()
        self._rows = rows[order]

    def hide(self, first: int, scores: Tensor) -> None:
        """Put the hidden ones of the items from ``first`` on last in ``scores [Q, C]``, in place."""
        edges = torch.tensor([first, first + scores.shape[1]], device=scores.device)
        low, high = torch.searchsorted(self._items, edges).tolist()
        scores[self._rows[low:high], self._items[low:high] - first] = -torch.inf
