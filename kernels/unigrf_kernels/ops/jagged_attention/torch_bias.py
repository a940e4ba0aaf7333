"""Biases and masks of the plain PyTorch path: tiles that products are added to, and gradients taken from tiles.

Scores of a block are ``[F, N, F, R, C]``: key phase, sequence, query phase, query cell, key cell
(see `torch_blocks`).
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .buckets import time_buckets
from .torch_blocks import Block, Group, Schedule

MASKED = -1.0e30
"""Added to the score of a pair that is not visible. silu, its derivative and exp of it are exactly 0, and unlike
infinity it makes no NaN in silu."""


class DiagonalBias:
    """Position bias, causal mask and window within the history.

    All three depend on ``query cell - key cell`` and the two phases alone. One vector per pair of phases holds
    their sum for every difference, and a tile is a view of it, so masks cost no pass of their own. Backward goes
    the same way: score gradients are summed over sequences, then along diagonals.
    """

    def __init__(self, schedule: Schedule, window: int | None, table: Tensor | None, dtype: torch.dtype) -> None:
        self.table = None if table is None else table.to(dtype)
        self.fills_block = table is not None or window is not None
        cells, device = schedule.cells, schedule.key_slot.device
        self.largest = schedule.longest_history - 1
        # Largest difference first, so that ascending keys walk forward through the vector.
        difference = torch.arange(self.largest, -self.largest - 2, -1, device=device)
        phase = torch.arange(cells.phases, device=device)
        between_phases = phase[:, None] - cells.query_shift - phase[:, None, None]
        distance = difference * cells.phases + between_phases
        is_masked = distance < 0 if window is None else (distance < 0) | (distance >= window)
        self.vectors = torch.zeros(distance.shape, dtype=dtype, device=device).masked_fill_(is_masked, MASKED)[
            None
        ]
        if self.table is not None:
            self.distance = distance.clamp(0, self.table.shape[1] - 1)
            self.vectors = self.vectors + self.table[:, self.distance]
            self.gradient = torch.zeros_like(self.vectors)

    def tile(self, head: int, block: Block) -> Tensor:
        """``[F, 1, F, R, C]`` view of the vectors, one entry per difference of cells."""
        vector = self.vectors[head if self.table is not None else 0]
        rows_upwards = vector[..., self._span(block)].unfold(-1, len(block.columns), 1)
        # flip would keep the view's overlapping strides and hand out transposed memory, four times slower to add.
        return rows_upwards.contiguous().flip(-2).unsqueeze(1)

    def collect(self, head: int, block: Block, scores_grad: Tensor) -> None:
        """Add what the block contributes to the gradient."""
        rows, columns = len(block.rows), len(block.columns)
        # Padded by one column more than the longest diagonal needs and read with one column less, each row moves
        # a step to the right of the one above: diagonals become columns.
        padded = F.pad(scores_grad.sum(1).flip(-2), (0, rows)).flatten(-2)
        skewed = padded[..., : rows * (rows + columns - 1)].unflatten(-1, (rows, rows + columns - 1))
        self.gradient[head, ..., self._span(block)].add_(skewed.sum(-2))

    def table_gradient(self) -> Tensor:
        """``[H, P]`` gradient of the position bias."""
        assert self.table is not None
        return torch.zeros_like(self.table).index_add_(1, self.distance.flatten(), self.gradient.flatten(1))

    def _span(self, block: Block) -> slice:
        start = self.largest - (block.rows.stop - 1 - block.columns.start)
        return slice(start, start + len(block.rows) + len(block.columns) - 1)


class CandidateBias:
    """Position bias, mask and window of candidates' rows.

    Candidates stand at one position, so a key's terms are the same for all of its sequence's: one vector over
    the slots of all keys holds them, and a tile repeats its part of it. Candidates as keys are apart: each is
    seen by itself alone.
    """

    def __init__(self, schedule: Schedule, window: int | None, table: Tensor | None, dtype: torch.dtype) -> None:
        self.table = None if table is None else table.to(dtype)
        assert schedule.to_candidates is not None
        distance = schedule.to_candidates
        is_masked = distance < 0 if window is None else (distance < 0) | (distance >= window)
        self.vectors = torch.zeros_like(distance, dtype=dtype).masked_fill_(is_masked, MASKED)[None]
        if self.table is not None:
            self.distance = distance.clamp(0, self.table.shape[1] - 1)
            self.vectors = self.vectors + self.table[:, self.distance]
            self.gradient = torch.zeros_like(self.vectors)

    def tile(self, head: int, group: Group, block: Block) -> Tensor:
        """``[F, N, 1, 1, C]`` bias and mask of all keys as candidates see them, but for `others`."""
        return block.key_values(group.keys.part_of(self.vectors[head if self.table is not None else 0]))

    def others(self, block: Block) -> Tensor:
        """``[F, 1, F, R, C]`` mask of one candidate against the others."""
        vectors, columns = self.vectors, len(block.candidate_columns)
        return _other_candidates(block.phases, block.candidate_rows, columns, vectors.dtype, vectors.device)

    def collect(self, head: int, group: Group, block: Block, scores_grad: Tensor) -> None:
        """Add what the block contributes to the gradient."""
        sums = sum_of_slices(scores_grad, 2).sum(2)[:, :, None, None]
        block.key_values(group.keys.part_of(self.gradient[head])).add_(sums)

    def table_gradient(self) -> Tensor:
        """``[H, P]`` gradient of the position bias."""
        assert self.table is not None
        return torch.zeros_like(self.table).index_add_(1, self.distance, self.gradient)


@lru_cache(maxsize=64)
def _other_candidates(
    phases: int, rows: range, num_cells: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """`CandidateBias.others`: small, the same for nearly all blocks, and slower to make than to add."""
    tokens = torch.arange(phases * num_cells, device=device).view(phases, num_cells)
    is_other = tokens[:, rows.start : rows.stop, None] != tokens[:, None, None, None]
    return torch.zeros(is_other.shape, dtype=dtype, device=device).masked_fill_(is_other, MASKED)


class TimeBias:
    """Time bias of all blocks, computed once per pair of cells."""

    LANES = 4
    """Copies of the table, used in turn along a row. Neighbouring cells mostly share a bucket, and each addition
    to a bucket's gradient waits for the one before."""

    def __init__(self, table: Tensor, buckets: BlockBuckets, dtype: torch.dtype) -> None:
        self.table = table.to(dtype).repeat_interleave(self.LANES, dim=1)
        self.buckets = buckets
        self.gradient = torch.zeros_like(self.table)

    def tile(self, head: int, group: Group, block: Block) -> Tensor:
        """``[1, N, 1, R, C]``."""
        _, sequences, _, rows, columns = block.shape
        bias = self.table[head].index_select(0, self.buckets.of(group, block))
        return bias.view(1, sequences, 1, rows, columns)

    def collect(self, head: int, group: Group, block: Block, scores_grad: Tensor) -> None:
        """Add what the block contributes to the gradient."""
        # One addition per phase: torch's sum over two short dimensions is four times slower.
        of_queries = sum_of_slices(sum_of_slices(scores_grad, 0), 1)
        sums = torch.bincount(self.buckets.of(group, block), of_queries.flatten(), self.table.shape[1])
        self.gradient[head].add_(sums)

    def table_gradient(self) -> Tensor:
        """``[H, num_buckets]`` gradient of the time bias."""
        return self.gradient.unflatten(1, (-1, self.LANES)).sum(2)


def sum_of_slices(tensor: Tensor, dim: int) -> Tensor:
    """``tensor.sum(dim)`` where ``dim`` is one or two."""
    slices = tensor.unbind(dim)
    return slices[0] if len(slices) == 1 else torch.add(*slices)


class BlockBuckets:
    """For each block the flat indices into the table of `TimeBias`, int32 ``[N * R * C]``, made on first use.

    Layers and passes share them. Very long sequences would fill the memory: beyond a limit they are made again.
    """

    MAX_CACHED = 64 * 1024 * 1024
    """Indices kept per batch: 256 MiB."""

    def __init__(self, schedule: Schedule, query_times: Tensor, key_times: Tensor, num_buckets: int) -> None:
        self.query_times, self.key_times, self.num_buckets = query_times, key_times, num_buckets
        self._cached: dict[Block, Tensor] = {}
        self._num_cached = 0

    def of(self, group: Group, block: Block) -> Tensor:
        """Indices of one block."""
        indices = self._cached.get(block)
        if indices is None:
            indices = self._make(group, block)
            if self._num_cached + indices.numel() <= self.MAX_CACHED:
                self._cached[block] = indices
                self._num_cached += indices.numel()
        return indices

    def _make(self, group: Group, block: Block) -> Tensor:
        phases, sequences, _, rows, columns = block.shape
        asked = block.queries(self.query_times[group.queries.tokens][:, None]).view(sequences, phases, rows)
        is_first = block.queries(group.queries.is_real[:, None]).view(sequences, phases, rows)[:, 0]
        # A shifted cell at either end of a sequence lacks one of its tokens.
        asked = torch.where(is_first, asked[:, 0], asked[:, -1])
        happened = block.keys(self.key_times[group.keys.tokens][:, None], 0).view(sequences, 1, columns)
        bucket = time_buckets(asked[:, :, None] - happened, self.num_buckets)
        lane = torch.arange(columns, dtype=torch.int32, device=bucket.device) % TimeBias.LANES
        return (bucket * TimeBias.LANES + lane).flatten()


def _write_sum(scores: Tensor, position: Tensor | None, time: Tensor | None) -> bool:
    """Fill ``scores`` with the sum of the terms that are not None; False: there is none."""
    if position is not None and time is not None:
        torch.add(position, time, out=scores)
        return True
    for term in (position, time):
        if term is not None:
            scores.copy_(term)
    return position is not None or time is not None


class ScoreBias:
    """All score terms of one call that do not come from queries and keys."""

    def __init__(
        self,
        schedule: Schedule,
        window: int | None,
        position_table: Tensor | None,
        time_table: Tensor | None,
        buckets: BlockBuckets | None,
        dtype: torch.dtype,
    ) -> None:
        self.diagonal = DiagonalBias(schedule, window, position_table, dtype)
        self.candidate = (
            None if schedule.to_candidates is None else CandidateBias(schedule, window, position_table, dtype)
        )
        self.time = None if time_table is None or buckets is None else TimeBias(time_table, buckets, dtype)

    def write_terms(self, scores: Tensor, head: int, group: Group, block: Block) -> bool:
        """Fill ``scores`` with the terms that products are added to; False if there are none."""
        time = None if self.time is None else self.time.tile(head, group, block)
        position = self.diagonal.tile(head, block) if block.rows and self.diagonal.fills_block else None
        if self.candidate is None or not block.candidate_rows:
            return _write_sum(scores, position, time)
        if not _write_sum(
            block.within_history(scores), position, None if time is None else block.within_history(time)
        ):
            block.within_history(scores).zero_()
        tile = self.candidate.tile(head, group, block)
        of_candidates = block.of_candidates(scores)
        _write_sum(
            of_candidates, tile.expand_as(of_candidates), None if time is None else block.of_candidates(time)
        )
        scores[..., : len(block.rows), len(block.columns) :] = MASKED
        return True

    def mask(self, scores: Tensor, head: int, block: Block) -> None:
        """Apply the masks that `write_terms` left to be added after the products."""
        if block.rows and not self.diagonal.fills_block:
            # Without bias and window, only a block's end at the diagonal needs it.
            first = block.rows.start - block.columns.start
            block.within_history(scores)[..., first:].add_(self.diagonal.tile(head, block)[..., first:])
        if self.candidate is not None and block.candidate_rows:
            block.of_candidates(scores)[..., len(block.columns) :].add_(self.candidate.others(block))

    def collect_position(self, gradient: Tensor, head: int, group: Group, block: Block) -> None:
        """Add a block's score gradients to the position table's."""
        if block.rows:
            self.diagonal.collect(head, block, block.within_history(gradient))
        if self.candidate is not None and block.candidate_rows:
            self.candidate.collect(head, group, block, block.of_candidates(gradient))

    def collect_time(self, gradient: Tensor, head: int, group: Group, block: Block) -> None:
        """Add a block's score gradients to the time table's."""
        assert self.time is not None
        self.time.collect(head, group, block, gradient)

    def position_gradient(self) -> Tensor:
        """``[H, P]`` sum over all blocks collected."""
        gradient = self.diagonal.table_gradient()
        return gradient if self.candidate is None else gradient.add_(self.candidate.table_gradient())

    def time_gradient(self) -> Tensor:
        """``[H, num_buckets]`` sum over all blocks collected."""
        assert self.time is not None
        return self.time.table_gradient()
