"""Scores of items against queries, each rank using only the rows and columns of the table that it holds.

Legend: ``Q`` queries of all ranks, ``D`` width, ``C`` items of a chunk.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.fixed_point import exact_norms, to_fixed_point
from unigrf_dist.model.table_shard import TableShard
from unigrf_dist.ranks.collective import Collective

SMALLEST_NORM = 1e-6
"""Vectors are normalised as ``x / max(||x||, 1e-6)``, exactly as in the loss."""


@dataclass(frozen=True)
class _Part:
    """A shard without its padding."""

    first: int
    column: int
    weight: Tensor

    @property
    def last(self) -> int:
        return self.first + self.weight.shape[0]

    @property
    def columns(self) -> slice:
        return slice(self.column, self.column + self.weight.shape[1])


class ShardedScores:
    """Fixed-point scores of the items of all ranks (see ``fixed_point`` for why they are exact).

    Args:
        shards: this rank's rectangles; those of all ranks together cover the table once.
        num_items: rows of the table.
        dim: columns that count.
        normalize: whether each item is divided by its own length; else all by the greatest length.
        ranks: those that share the table.
        chunk_bytes: memory for the scores of one chunk.

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
        ranks: Collective,
        chunk_bytes: int,
    ) -> None:
        self.num_items, self.dim, self.normalize = num_items, dim, normalize
        self._ranks, self._chunk_bytes = ranks, chunk_bytes
        parts = (_without_padding(shard, dim) for shard in shards)
        # Ascending, so that chunks come in the order of item ids.
        self._parts = sorted((part for part in parts if part.weight.numel()), key=lambda part: part.first)
        self.split_by_columns = self._check_cover()
        self._divisors: list[Tensor] | None = None
        self._fixed: dict[tuple[int, int], Tensor] = {}
        self._unit = 1.0
        self._score = self._exact_scores
        self._vectors: Callable[[Tensor, Tensor], Tensor] = to_fixed_point

    def fast(self) -> ShardedScores:
        """The same in fp32 with the device's own matrix product: scores then depend on how the sum is cut."""
        other = copy.copy(self)
        other._score, other._vectors = _fp32_scores, _fp32_vectors
        return other

    def unit(self, device: torch.device) -> float:
        """What a fixed-point item of length 1 stands for: 1, or without normalisation the greatest length."""
        self._row_divisors(device)
        return self._unit

    def chunks(self, queries: Tensor) -> Iterator[tuple[int, Tensor]]:
        """First item and ``[Q, C]`` float64 scores, in ascending order of items; collective.

        Where columns are split, the partial scores of all ranks are summed and every rank gets all items;
        else each rank gets its own items only.

        Args:
            queries: ``[Q, D]`` fixed point, the same on every rank.
        """
        divisors = self._row_divisors(queries.device)
        if queries.shape[0] == 0:
            return
        size = max(1, self._chunk_bytes // (8 * max(queries.shape)))
        if self.split_by_columns:
            for first in range(0, self.num_items, size):
                yield first, self._summed(queries, first, min(first + size, self.num_items))
            return
        for part, divisor in zip(self._parts, divisors, strict=True):
            for first in range(part.first, part.last, size):
                yield first, self._score(queries, part, divisor, first, min(first + size, part.last))

    def of_items(self, queries: Tensor, item_ids: Tensor) -> Tensor:
        """``[Q]`` float64, the score of one item per query, equal to the last bit to that in ``chunks``."""
        scores = queries.new_zeros(item_ids.numel())
        for part, divisor in zip(self._parts, self._row_divisors(queries.device), strict=True):
            here = ((item_ids >= part.first) & (item_ids < part.last)).nonzero()[:, 0]
            rows = item_ids[here] - part.first
            items = self._vectors(part.weight[rows], divisor[rows])
            scores[here] += (queries[here, part.columns].to(items) * items).sum(1).to(scores)
        return self._ranks.sum(scores)

    def _exact_scores(self, queries: Tensor, part: _Part, divisor: Tensor, first: int, last: int) -> Tensor:
        return queries[:, part.columns] @ self._fixed_items(part, divisor, first, last).T

    def _fixed_items(self, part: _Part, divisor: Tensor, first: int, last: int) -> Tensor:
        """``[last - first, columns]`` items in fixed point; of a small table they are made once."""
        if 8 * part.weight.numel() > self._chunk_bytes:
            return _to_fixed(part, divisor, first, last)
        key = (part.first, part.column)
        if key not in self._fixed:
            self._fixed[key] = _to_fixed(part, divisor, part.first, part.last)
        return self._fixed[key][first - part.first : last - part.first]

    def _summed(self, queries: Tensor, first: int, last: int) -> Tensor:
        scores = queries.new_zeros(queries.shape[0], last - first)
        for part, divisor in zip(self._parts, self._row_divisors(queries.device), strict=True):
            low, high = max(first, part.first), min(last, part.last)
            if low < high:
                scores[:, low - first : high - first] += self._score(queries, part, divisor, low, high)
        return self._ranks.sum(scores)

    def _row_divisors(self, device: torch.device) -> list[Tensor]:
        """``[rows]`` float64 of each part: what makes its rows length 1 or less. Computed at the first use, which
        is collective, because only then a rank without shards learns its device."""
        if self._divisors is None:
            self._refuse_non_finite(device)
            norms = exact_norms(
                [part.weight for part in self._parts],
                self.dim,
                across_max=lambda values: self._across_columns(values, self._ranks.maximum, device, torch.float64),
                across_sum=lambda values: self._across_columns(values, self._ranks.sum, device, torch.int64),
            )
            if not self.normalize:
                longest = max((float(norm.max()) for norm in norms), default=0.0)
                self._unit = float(self._ranks.maximum(torch.tensor(longest, dtype=torch.float64))) or 1.0
            self._divisors = [
                norm.clamp_min(SMALLEST_NORM) if self.normalize else torch.full_like(norm, self._unit)
                for norm in norms
            ]
        return self._divisors

    def _across_columns(
        self,
        values: list[Tensor],
        reduce: Callable[[Tensor], Tensor],
        device: torch.device,
        dtype: torch.dtype,
    ) -> list[Tensor]:
        """Reduce per-row values over the ranks (and parts) that hold columns of the same row."""
        if not self.split_by_columns:
            return values
        # Zero is neutral for both reductions: the values are magnitudes and squares.
        local = torch.zeros(len(self._parts) or 1, self.num_items, dtype=dtype, device=device)
        for row, part, value in zip(local, self._parts, values, strict=False):
            row[part.first : part.last] = value
        merged = reduce(local.amax(0) if dtype.is_floating_point else local.sum(0))
        return [merged[part.first : part.last] for part in self._parts]

    def _check_cover(self) -> bool:
        """Whether some row's columns lie in several shards, on this rank or another."""
        own = [(part.first, part.column, *part.weight.shape) for part in self._parts]
        everyone = [shard for shards in self._ranks.gather_objects(own) for shard in shards]
        covered = sum(rows * columns for _, _, rows, columns in everyone)
        last = max((first + rows for first, _, rows, _ in everyone), default=0)
        if covered != self.num_items * self.dim or last != self.num_items:
            raise ValueError(
                f"shards must cover the [{self.num_items}, {self.dim}] table once, "
                f"got (row, column, rows, columns) {sorted(everyone)}"
            )
        return any(columns != self.dim for _, _, _, columns in everyone)

    def _refuse_non_finite(self, device: torch.device) -> None:
        # amax carries NaN and infinity along; isfinite of the whole shard would need a mask of its size.
        bad = sum(int(not part.weight.abs().amax().isfinite()) for part in self._parts)
        if int(self._ranks.sum(torch.tensor(bad, device=device))):
            raise UserError("the item vectors hold NaN or infinity: training diverged; take an earlier checkpoint")


def _without_padding(shard: TableShard, dim: int) -> _Part:
    width = max(0, min(shard.weight.shape[1], dim - shard.column_offset))
    return _Part(shard.row_offset, shard.column_offset, shard.weight.detach()[:, :width])


def _fp32_vectors(weight: Tensor, divisor: Tensor) -> Tensor:
    return weight.float() / divisor.float()[:, None]


def _fp32_scores(queries: Tensor, part: _Part, divisor: Tensor, first: int, last: int) -> Tensor:
    rows = slice(first - part.first, last - part.first)
    products = queries[:, part.columns].float() @ part.weight[rows].float().T
    return products.div_(divisor[rows].float())


def _to_fixed(part: _Part, divisor: Tensor, first: int, last: int) -> Tensor:
    rows = slice(first - part.first, last - part.first)
    return to_fixed_point(part.weight[rows], divisor[rows])
