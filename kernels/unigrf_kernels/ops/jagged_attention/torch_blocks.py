"""The plain PyTorch path's schedule: a batch divided into blocks of scores that fit a cache.

**Cells.** A recommender's tokens come in pairs (an item, then its behaviour) that share a time. Where that holds
for a whole batch, a cell is such a pair (two phases), else one token (one phase). A block's scores are stored as
one matrix of cells per pair of phases, so the time bias, worked out once per pair of cells, is added to all four
with long contiguous rows. A model whose queries carry the time of the next event pairs them differently, token
``2m - 1`` with ``2m``: then query cells are shifted by one token.

**Groups.** Sequences of similar length are padded to the longest among them, history and candidates apart. Padding
needs no mask: a causal query sees no later key, and a padded query has a zero output gradient.

**Candidates.** In the forward, a few candidates share a block with the last queries of their history, since a
separate block would cost more than its scores; many candidates have separate blocks.

**Slots.** The packed tokens of a group are copied to slots in the order in which blocks read them: queries block
by block ``[N, F, R]`` (sequences, phases, cells), keys ``[F, N, S]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cells:
    """How tokens become cells.

    Attributes:
        phases: tokens of a cell, 1 or 2.
        query_shift: tokens by which the cells of the history's queries begin earlier, 0 or 1.
    """

    phases: int
    query_shift: int


@dataclass(frozen=True, eq=False)
class Block:
    """Scores ``[F, N, F, R, C]``: key phase, sequence, query phase, query cell, key cell.

    Queries are cells of the history, then cells of the candidates; keys likewise.

    Attributes:
        phases: ``F``, tokens of a cell.
        sequences: ``N``: the first ``N`` sequences of the group.
        rows: query cells of the history.
        candidate_rows: query cells of the candidates.
        columns: key cells of the history.
        candidate_columns: key cells of the candidates, all of them where there are candidate rows.
        query_start: slot of the first query, counted within the group.
        key_starts: slot of the first key of each phase, counted within the group.
        key_stride: key slots from one sequence to the next.
    """

    phases: int
    sequences: int
    rows: range
    candidate_rows: range
    columns: range
    candidate_columns: range
    query_start: int
    key_starts: tuple[int, ...]
    key_stride: int

    @property
    def num_rows(self) -> int:
        """``R``, query cells of a sequence."""
        return len(self.rows) + len(self.candidate_rows)

    @property
    def num_columns(self) -> int:
        """``C``, key cells of a sequence."""
        return len(self.columns) + len(self.candidate_columns)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """``F, N, F, R, C``, as scores are stored."""
        return self.phases, self.sequences, self.phases, self.num_rows, self.num_columns

    def within_history(self, scores: Tensor) -> Tensor:
        """The part of ``[…, R, C]`` where queries and keys are of the history."""
        return scores[..., : len(self.rows), : len(self.columns)]

    def of_candidates(self, scores: Tensor) -> Tensor:
        """The part of ``[…, R, C]`` where queries are candidates."""
        return scores[..., len(self.rows) :, :]

    def queries(self, slots: Tensor) -> Tensor:
        """``[N, F R, D]``, the block's part of contiguous ``[query slots, D]``."""
        length, width = self.phases * self.num_rows, slots.shape[1]
        size, stride = (self.sequences, length, width), (length * width, width, 1)
        return slots.as_strided(size, stride, slots.storage_offset() + self.query_start * width)

    def keys(self, slots: Tensor, phase: int) -> Tensor:
        """``[N, C, D]``, the block's part of contiguous ``[key slots, D]``."""
        width = slots.shape[1]
        size, stride = (self.sequences, self.num_columns, width), (self.key_stride * width, width, 1)
        return slots.as_strided(size, stride, slots.storage_offset() + self.key_starts[phase] * width)

    def key_values(self, values: Tensor) -> Tensor:
        """``[F, N, 1, 1, C]``, the block's part of contiguous ``[key slots]``, beside its scores."""
        first, phase_stride = self.key_starts[0], self.key_starts[-1] - self.key_starts[0]
        size, stride = (
            (self.phases, self.sequences, 1, 1, self.num_columns),
            (phase_stride, self.key_stride, 1, 1, 1),
        )
        return values.as_strided(size, stride, values.storage_offset() + first)


@dataclass(frozen=True)
class Slots:
    """Which tokens the slots of a group hold.

    Attributes:
        start: number of slots in all earlier groups.
        tokens: ``[slots]`` int64 packed token of each slot; any real token for padding.
        is_real: ``[slots]`` bool, whether a slot holds a token.
        padding: int64 slots that hold none.
    """

    start: int
    tokens: Tensor
    is_real: Tensor
    padding: Tensor

    def __len__(self) -> int:
        return self.tokens.numel()

    def load(self, packed: Tensor, slots: Tensor) -> Tensor:
        """Copy ``[T, D]`` tokens to ``slots`` ``[slots, D]``, zero for padding, and return those."""
        if packed.dtype == slots.dtype:
            torch.index_select(packed, 0, self.tokens, out=slots)
        else:
            slots.copy_(packed.index_select(0, self.tokens))
        return slots.index_fill_(0, self.padding, 0)

    def part_of(self, all_slots: Tensor) -> Tensor:
        """The group's ``[slots, D]`` in the slots of all groups."""
        return all_slots[self.start : self.start + len(self)]


@dataclass(frozen=True)
class Group:
    """Sequences of similar length, and their blocks."""

    queries: Slots
    keys: Slots
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Layout:
    """All blocks of a batch for one pass. Sequences without tokens are in none.

    Attributes:
        groups: groups in the order of their slots.
        query_slot: ``[T]`` int64, where a token's query lies in the slots of all groups.
    """

    groups: tuple[Group, ...]
    query_slot: Tensor

    @property
    def num_query_slots(self) -> int:
        """Query slots of all groups."""
        return sum(len(group.queries) for group in self.groups)


@dataclass(frozen=True)
class Schedule:
    """How both passes run over a batch; they have the keys and most blocks in common.

    Attributes:
        cells: how tokens become cells.
        forward: blocks of the forward, where a few candidates share a block with their history.
        backward: blocks of the backward, where candidates are separate, so that those without a gradient are
            skipped.
        key_slot: ``[T]`` int64, where a token's key lies in the slots of all groups.
        to_candidates: ``[key slots]`` int64, positions from a slot's token to its sequence's candidates, which all
            stand behind the history; -1 where a slot holds no token. None where no sequence has candidates.
        longest_history: query cells of the longest history.
    """

    cells: Cells
    forward: Layout
    backward: Layout
    key_slot: Tensor
    to_candidates: Tensor | None
    longest_history: int

    @property
    def num_key_slots(self) -> int:
        """Key slots of all groups."""
        return sum(len(group.keys) for group in self.forward.groups)
