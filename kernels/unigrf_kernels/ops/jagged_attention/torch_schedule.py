"""Divides a batch into the groups and blocks of `torch_blocks`, which defines cells, segments and slots.

The steps of `make_schedule`: sort sequences by the length of their history; decide whether two tokens share a
cell; put neighbours in that order into groups, padded to the longest among them; divide the queries of a group
into blocks, and give each block the keys that any of its queries sees. The token number of padding is -1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .torch_blocks import Block, Cells, Group, Layout, Schedule, Slots

QUERY_TOKENS_PER_BLOCK = 96
"""Queries of a sequence in one block. Half of a block on the diagonal is wasted; thin blocks feed GEMM badly."""
SCORES_PER_BLOCK = 384 * 1024
"""Scores of the largest block of a group; backward holds two such tiles, 3 MiB. Measured on sequences of 400
tokens with 2 MiB of level-2 cache: half of it costs 10 % more time (calls), a third more gains nothing."""
MAX_CANDIDATES_BESIDE_HISTORY = 24
"""Up to so many candidates share a block with the last queries of their history."""
SHORTEST_IN_GROUP = 0.7
"""A sequence joins a group if its history has at least this share of the longest one's tokens."""


@dataclass(frozen=True)
class _Sequence:
    """First packed token, and how many tokens of history and of candidates follow."""

    start: int
    history: int
    candidates: int


def make_schedule(
    offsets: Tensor,
    num_candidates: Tensor | None,
    window: int | None,
    query_times: Tensor | None,
    key_times: Tensor | None,
) -> Schedule:
    """Divide a batch into blocks; arguments as in `jagged_attention`."""
    bounds = offsets.tolist()
    candidates = [0] * (len(bounds) - 1) if num_candidates is None else num_candidates.tolist()
    sequences = [
        _Sequence(start, stop - start - count, count)
        for (start, stop), count in zip(pairwise(bounds), candidates, strict=True)
        if stop > start
    ]
    # By history alone: candidates are padded apart, to the most in a group.
    sequences.sort(key=lambda sequence: sequence.history, reverse=True)
    in_segment, is_candidate, distance = _positions_in_segments(offsets, num_candidates, bounds[-1])
    cells = _find_cells(in_segment, is_candidate, query_times, key_times)

    builder = _Builder(cells, window, offsets.device, has_candidates=num_candidates is not None)
    for group in _split(sequences):
        builder.add(group)
    forward = _layout(builder.forward, in_segment)
    longest = sequences[0].history if sequences else 0
    return Schedule(
        cells,
        forward,
        forward if builder.backward is builder.forward else _layout(builder.backward, in_segment),
        key_slot=_slot_of_token([group.keys for group in forward.groups], in_segment),
        to_candidates=None if distance is None else _to_key_slots(distance, forward.groups),
        longest_history=builder.num_cells(longest, cells.query_shift),
    )


def _positions_in_segments(
    offsets: Tensor, num_candidates: Tensor | None, num_tokens: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Where tokens lie in their segment, which is a sequence's history or its candidates.

    Returns:
        ``[T]`` int64 index in the segment, ``[T]`` bool (``[]`` without candidates) whether it is a candidate, and
        ``[T]`` int64 positions from the token to the first candidate, None without candidates.
    """
    lengths = offsets.diff()
    index = torch.arange(num_tokens, device=offsets.device)
    index -= torch.repeat_interleave(offsets[:-1], lengths, output_size=num_tokens)
    if num_candidates is None:
        return index, torch.zeros((), dtype=torch.bool, device=offsets.device), None
    history = torch.repeat_interleave(lengths - num_candidates, lengths, output_size=num_tokens)
    is_candidate = index >= history
    return torch.where(is_candidate, index - history, index), is_candidate, (history - index).clamp_(min=0)


def _find_cells(
    in_segment: Tensor, is_candidate: Tensor, query_times: Tensor | None, key_times: Tensor | None
) -> Cells:
    """Two tokens to a cell where they share their times throughout the batch, single tokens otherwise."""
    single = Cells(phases=1, query_shift=0)
    if query_times is None or key_times is None or query_times.numel() == 0:
        return single
    # A token at an odd index is the second of the pair (0, 1), (2, 3), ...; roll(1) compares it with the first.
    # The first token of a segment is never a second one, so that what roll wraps around is not looked at.
    is_second = in_segment % 2 == 1
    queries_differ = query_times != query_times.roll(1)
    keys_differ = key_times != key_times.roll(1)
    # Keys and candidates pair from the start of their segment under either kind of pairs.
    if bool((is_second & (keys_differ | (is_candidate & queries_differ))).any()):
        return single
    if not bool((is_second & queries_differ).any()):
        return Cells(phases=2, query_shift=0)
    # Shifted, history queries pair as (1, 2), (3, 4), ..., and the second of a pair has an even index.
    is_second_if_shifted = ~is_second & (in_segment > 0) & ~is_candidate
    if not bool((is_second_if_shifted & queries_differ).any()):
        return Cells(phases=2, query_shift=1)
    return single


def _split(sequences: list[_Sequence]) -> Iterator[list[_Sequence]]:
    """Groups: neighbours in order of length, as many as one block holds, none much shorter than the first."""
    first = 0
    while first < len(sequences):
        longest = max(1, sequences[first].history)
        # The last block of the longest history is the group's largest: all its keys, a full set of queries.
        most = max(1, SCORES_PER_BLOCK // (min(longest, QUERY_TOKENS_PER_BLOCK) * longest))
        last = first + 1
        while (
            last < len(sequences)
            and last - first < most
            and sequences[last].history >= SHORTEST_IN_GROUP * longest
        ):
            last += 1
        yield sequences[first:last]
        first = last


def _layout(groups: list[Group], like: Tensor) -> Layout:
    return Layout(tuple(groups), _slot_of_token([group.queries for group in groups], like))


def _slot_of_token(slots: list[Slots], like: Tensor) -> Tensor:
    """``[T]`` int64 slot, among those of all groups, that each token is copied to; ``like`` is ``[T]`` int64."""
    slot_of_token = torch.empty_like(like)
    for part in slots:
        real = part.is_real.nonzero().flatten()
        slot_of_token[part.tokens[real]] = real + part.start
    return slot_of_token


def _to_key_slots(values: Tensor, groups: tuple[Group, ...]) -> Tensor | None:
    """``[T]`` values of tokens → ``[key slots]`` values, -1 for padding; None without slots."""
    slots = [torch.where(group.keys.is_real, values[group.keys.tokens], -1) for group in groups]
    return torch.cat(slots) if slots else None


class _BlockRanges(NamedTuple):
    """The cells of a block, before its slots are known; fields as in `Block`."""

    sequences: int
    rows: range
    candidate_rows: range
    columns: range
    candidate_columns: range

    def query_tokens(self, history: Tensor, candidates: Tensor) -> Tensor:
        """``[N, F, R]`` tokens of the block, taken from the group's ``[N, F, S]`` history and candidates."""
        of_history = history[: self.sequences, :, self.rows.start : self.rows.stop]
        of_candidates = candidates[: self.sequences, :, self.candidate_rows.start : self.candidate_rows.stop]
        return torch.cat([of_history, of_candidates], dim=2)


class _Builder:
    """Collects the groups of a batch, one after the other, with their slots and blocks.

    ``forward`` and ``backward`` are two layouts of the same groups; without candidates they are one list.
    """

    def __init__(self, cells: Cells, window: int | None, device: torch.device, *, has_candidates: bool) -> None:
        self.phases, self.shift, self.window, self.device = cells.phases, cells.query_shift, window, device
        self.rows_per_block = max(1, QUERY_TOKENS_PER_BLOCK // cells.phases)
        self.forward: list[Group] = []
        # The layouts differ only in which block candidates lie.
        self.backward: list[Group] = [] if has_candidates else self.forward

    def num_cells(self, tokens: int, shift: int) -> int:
        """Cells of a segment of so many tokens, whose first cell lacks its first ``shift`` tokens."""
        return -(-(tokens + shift) // self.phases) if tokens else 0

    def add(self, sequences: list[_Sequence]) -> None:
        """Append a group of sequences, longest history first."""
        numbers = [(s.start, s.history, s.start + s.history, s.candidates) for s in sequences]
        # [N, 1, 1] each, to broadcast against [N, F, S].
        start, history, first_candidate, candidates = torch.tensor(numbers, device=self.device).T[:, :, None, None]
        longest, most_candidates = sequences[0].history, max(s.candidates for s in sequences)
        history_keys = self._segment(start, history, longest, 0)
        # Only the cells of the history's queries are shifted, see `Cells`.
        history_queries = history_keys if self.shift == 0 else self._segment(start, history, longest, self.shift)
        candidate_cells = self._segment(first_candidate, candidates, most_candidates, 0)
        keys = torch.cat([history_keys, candidate_cells], dim=2)  # [N, F, S]

        # Keys lie in the same slots [F, N, S] for every block and both layouts: a block reads a run of cells.
        key_slots = self._slots(keys.transpose(0, 1).flatten(), [group.keys for group in self.forward])
        num_candidate_cells = candidate_cells.shape[2]
        # The layouts share a block where cells and slots agree, and with it the time buckets that are kept for it.
        shared: dict[tuple[_BlockRanges, int], Block] = {}
        for groups in [self.forward] if self.backward is self.forward else [self.forward, self.backward]:
            beside_history = groups is self.forward and most_candidates <= MAX_CANDIDATES_BESIDE_HISTORY
            parts: list[Tensor] = []
            blocks: list[Block] = []
            query_start = 0
            for ranges in self._block_ranges(
                sequences, history_queries.shape[2], history_keys.shape[2], num_candidate_cells, beside_history
            ):
                tokens = ranges.query_tokens(history_queries, candidate_cells)
                if (ranges, query_start) not in shared:
                    shared[ranges, query_start] = self._block(ranges, query_start, keys)
                blocks.append(shared[ranges, query_start])
                # Query slots follow the blocks, so that each block's queries are contiguous [N, F, R].
                parts.append(tokens.flatten())
                query_start += tokens.numel()
            query_slots = self._slots(torch.cat(parts), [group.queries for group in groups])
            groups.append(Group(query_slots, key_slots, tuple(blocks)))

    def _block(self, ranges: _BlockRanges, query_start: int, keys: Tensor) -> Block:
        return Block(
            **ranges._asdict(),
            phases=self.phases,
            query_start=query_start,
            key_starts=tuple(phase * keys[:, 0].numel() + ranges.columns.start for phase in range(self.phases)),
            key_stride=keys.shape[2],
        )

    def _block_ranges(
        self,
        sequences: list[_Sequence],
        query_cells: int,
        key_cells: int,
        candidate_cells: int,
        beside_history: bool,
    ) -> Iterator[_BlockRanges]:
        """The blocks of a group, whose longest sequence has so many cells; see `Block` for the ranges.

        ``beside_history`` puts the last candidates into the block of the last queries of the history.
        """
        history, candidates = self._even_ranges(query_cells), self._even_ranges(candidate_cells)
        all_candidates = range(candidate_cells)
        # A candidate stands behind its own history, and with a window the shortest one decides where to begin.
        seen_by_candidates = range(self._first_seen(sequences[-1].history), key_cells)
        for rows in history:
            first = self._first_seen(max(0, rows.start * self.phases - self.shift))
            if beside_history and candidates and rows is history[-1]:
                columns = range(min(first, seen_by_candidates.start), key_cells)
                yield _BlockRanges(len(sequences), rows, candidates.pop(), columns, all_candidates)
            else:
                # Sequences are sorted: those whose history has ended before these rows are the last ones.
                count = sum(1 for s in sequences if self.num_cells(s.history, self.shift) > rows.start)
                # A causal query sees no later cell, so columns end where rows do.
                yield _BlockRanges(count, rows, range(0), range(first, min(rows.stop, key_cells)), range(0))
        for rows in candidates:
            yield _BlockRanges(len(sequences), range(0), rows, seen_by_candidates, all_candidates)

    def _segment(self, start: Tensor, length: Tensor, longest: int, shift: int) -> Tensor:
        """``[N, F, S]`` tokens of segments that begin at ``start`` ``[N, 1, 1]``, by phase and cell."""
        num_cells = self.num_cells(longest, shift)
        index = torch.arange(num_cells * self.phases, device=self.device).view(num_cells, self.phases).T - shift
        return torch.where((index >= 0) & (index < length), start + index, -1)

    def _slots(self, tokens: Tensor, before: list[Slots]) -> Slots:
        is_real = tokens >= 0
        start = before[-1].start + len(before[-1]) if before else 0
        return Slots(start, tokens.clamp(min=0), is_real, (~is_real).nonzero().flatten())

    def _even_ranges(self, num_cells: int) -> list[range]:
        """As few ranges as the block size allows, of nearly equal length: no thin one is left at the end."""
        number = -(-num_cells // self.rows_per_block)
        return [range(num_cells * i // number, num_cells * (i + 1) // number) for i in range(number)]

    def _first_seen(self, position: int) -> int:
        """First key cell that a query at ``position``, or a later one, sees."""
        return 0 if self.window is None else max(0, position - self.window + 1) // self.phases
