"""Cuts a batch into the groups and blocks of `torch_blocks`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .torch_blocks import Block, Cells, Cutting, Group, Schedule, Slots

QUERY_TOKENS_PER_BLOCK = 96
"""Queries of a sequence in one block. Half of a block on the diagonal is wasted; thin blocks feed GEMM badly."""
SCORES_PER_BLOCK = 384 * 1024
"""Scores of the largest block of a group; backward holds two such tiles, 3 MiB. Measured on sequences of 400
tokens with 2 MiB of level-2 cache: half of it costs 10 % more time (calls), a third more gains nothing."""
CANDIDATES_THAT_RIDE_ALONG = 24
"""Up to so many candidates share a block with the last queries of their history."""
SHORTEST_IN_GROUP = 0.7
"""A sequence joins a group if its history has this share of the longest one's."""


@dataclass(frozen=True)
class _Sequence:
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
    """Cut a batch into blocks; arguments as in `jagged_attention`."""
    bounds = offsets.tolist()
    candidates = [0] * (len(bounds) - 1) if num_candidates is None else num_candidates.tolist()
    sequences = [
        _Sequence(start, stop - start - ahead, ahead)
        for (start, stop), ahead in zip(pairwise(bounds), candidates, strict=True)
        if stop > start
    ]
    sequences.sort(key=lambda sequence: sequence.history, reverse=True)
    in_segment, is_candidate, distance = _places(offsets, num_candidates, bounds[-1])
    cells = _find_cells(in_segment, is_candidate, query_times, key_times)

    builder = _Builder(cells, window, offsets.device, has_candidates=num_candidates is not None)
    for group in _split(sequences):
        builder.add(group)
    forward = _cutting(builder.forward, in_segment)
    longest = sequences[0].history if sequences else 0
    return Schedule(
        cells,
        forward,
        forward if builder.backward is builder.forward else _cutting(builder.backward, in_segment),
        key_slot=_slot_of_token([group.keys for group in forward.groups], in_segment),
        to_candidates=None if distance is None else _of_key_slots(distance, forward.groups),
        longest_history=builder.num_cells(longest, cells.query_shift),
    )


def _places(
    offsets: Tensor, num_candidates: Tensor | None, num_tokens: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """For each token: index in its segment (history or candidates), whether it is a candidate, how far to one."""
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
    """Pairs where they share their times throughout the batch, single tokens otherwise."""
    single = Cells(phases=1, query_shift=0)
    if query_times is None or key_times is None or query_times.numel() == 0:
        return single
    is_second = in_segment % 2 == 1
    queries_differ = query_times != query_times.roll(1)
    keys_differ = key_times != key_times.roll(1)
    if bool((is_second & (keys_differ | (is_candidate & queries_differ))).any()):
        return single
    if not bool((is_second & queries_differ).any()):
        return Cells(phases=2, query_shift=0)
    is_second_if_shifted = ~is_second & (in_segment > 0) & ~is_candidate
    if not bool((is_second_if_shifted & queries_differ).any()):
        return Cells(phases=2, query_shift=1)
    return single


def _split(sequences: list[_Sequence]) -> Iterator[list[_Sequence]]:
    """Neighbours in order of length, as many as one block holds."""
    first = 0
    while first < len(sequences):
        longest = max(1, sequences[first].history)
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


def _cutting(groups: list[Group], like: Tensor) -> Cutting:
    return Cutting(tuple(groups), _slot_of_token([group.queries for group in groups], like))


def _slot_of_token(slots: list[Slots], like: Tensor) -> Tensor:
    slot_of_token = torch.empty_like(like)
    for part in slots:
        real = part.is_real.nonzero().flatten()
        slot_of_token[part.tokens[real]] = real + part.start
    return slot_of_token


def _of_key_slots(values: Tensor, groups: tuple[Group, ...]) -> Tensor | None:
    """``[T]`` values of tokens → those of the key slots, -1 for padding; None without slots."""
    slots = [torch.where(group.keys.is_real, values[group.keys.tokens], -1) for group in groups]
    return torch.cat(slots) if slots else None


class _Cut(NamedTuple):
    """A block to be, with fields of `Block`."""

    sequences: int
    rows: range
    candidate_rows: range
    columns: range
    candidate_columns: range

    def tokens(self, history: Tensor, candidates: Tensor) -> Tensor:
        """``[N, F, R]``, out of those of the group's whole segments."""
        of_history = history[: self.sequences, :, self.rows.start : self.rows.stop]
        of_candidates = candidates[: self.sequences, :, self.candidate_rows.start : self.candidate_rows.stop]
        return torch.cat([of_history, of_candidates], dim=2)


class _Builder:
    """Lays groups behind each other and cuts them into blocks. Token numbers are -1 for padding."""

    def __init__(self, cells: Cells, window: int | None, device: torch.device, *, has_candidates: bool) -> None:
        self.phases, self.shift, self.window, self.device = cells.phases, cells.query_shift, window, device
        self.rows_per_block = max(1, QUERY_TOKENS_PER_BLOCK // cells.phases)
        self.forward: list[Group] = []
        # Without candidates there is nothing to cut in another way.
        self.backward: list[Group] = [] if has_candidates else self.forward

    def num_cells(self, tokens: int, shift: int) -> int:
        """Cells of a segment."""
        return -(-(tokens + shift) // self.phases) if tokens else 0

    def add(self, sequences: list[_Sequence]) -> None:
        """Append a group, longest history first."""
        numbers = [(s.start, s.history, s.start + s.history, s.candidates) for s in sequences]
        past, history, ahead, candidates = torch.tensor(numbers, device=self.device).T[:, :, None, None]
        longest, most_candidates = sequences[0].history, max(s.candidates for s in sequences)
        past_keys = self._segment(past, history, longest, 0)
        past_queries = past_keys if self.shift == 0 else self._segment(past, history, longest, self.shift)
        candidate_cells = self._segment(ahead, candidates, most_candidates, 0)
        keys = torch.cat([past_keys, candidate_cells], dim=2)

        key_slots = self._slots(keys.transpose(0, 1).flatten(), [group.keys for group in self.forward])
        most_cells = candidate_cells.shape[2]
        made: dict[tuple[_Cut, int], Block] = {}
        cuttings = [self.forward] if self.backward is self.forward else [self.forward, self.backward]
        for groups in cuttings:
            ride_along = groups is self.forward and most_candidates <= CANDIDATES_THAT_RIDE_ALONG
            parts: list[Tensor] = []
            blocks: list[Block] = []
            query_start = 0
            for cut in self._cut(sequences, past_queries.shape[2], past_keys.shape[2], most_cells, ride_along):
                tokens = cut.tokens(past_queries, candidate_cells)
                if (cut, query_start) not in made:
                    made[cut, query_start] = self._block(cut, query_start, keys)
                blocks.append(made[cut, query_start])
                parts.append(tokens.flatten())
                query_start += tokens.numel()
            query_slots = self._slots(torch.cat(parts), [group.queries for group in groups])
            groups.append(Group(query_slots, key_slots, tuple(blocks)))

    def _block(self, cut: _Cut, query_start: int, keys: Tensor) -> Block:
        return Block(
            **cut._asdict(),
            phases=self.phases,
            query_start=query_start,
            key_starts=tuple(phase * keys[:, 0].numel() + cut.columns.start for phase in range(self.phases)),
            key_stride=keys.shape[2],
        )

    def _cut(
        self, sequences: list[_Sequence], query_cells: int, key_cells: int, candidate_cells: int, ride_along: bool
    ) -> Iterator[_Cut]:
        """Cut a group; the numbers are of cells, padded."""
        history, candidates = self._even_ranges(query_cells), self._even_ranges(candidate_cells)
        all_candidates = range(candidate_cells)
        # Candidates stand behind their own history, which may be a shorter one than the group's longest.
        seen_by_candidates = range(self._first_seen(sequences[-1].history), key_cells)
        for rows in history:
            first = self._first_seen(max(0, rows.start * self.phases - self.shift))
            if ride_along and candidates and rows is history[-1]:
                columns = range(min(first, seen_by_candidates.start), key_cells)
                yield _Cut(len(sequences), rows, candidates.pop(), columns, all_candidates)
            else:
                count = sum(1 for s in sequences if self.num_cells(s.history, self.shift) > rows.start)
                yield _Cut(count, rows, range(0), range(first, min(rows.stop, key_cells)), range(0))
        for rows in candidates:
            yield _Cut(len(sequences), range(0), rows, seen_by_candidates, all_candidates)

    def _segment(self, start: Tensor, length: Tensor, longest: int, shift: int) -> Tensor:
        """``[N, F, S]`` tokens of a segment that begins at ``start`` ``[N, 1, 1]``, by phase and cell."""
        num_cells = self.num_cells(longest, shift)
        index = torch.arange(num_cells * self.phases, device=self.device).view(num_cells, self.phases).T - shift
        return torch.where((index >= 0) & (index < length), start + index, -1)

    def _slots(self, tokens: Tensor, before: list[Slots]) -> Slots:
        is_real = tokens >= 0
        start = before[-1].start + len(before[-1]) if before else 0
        return Slots(start, tokens.clamp(min=0), is_real, (~is_real).nonzero().flatten())

    def _even_ranges(self, num_cells: int) -> list[range]:
        number = -(-num_cells // self.rows_per_block)
        return [range(num_cells * i // number, num_cells * (i + 1) // number) for i in range(number)]

    def _first_seen(self, position: int) -> int:
        """The first key cell that a query at ``position`` sees."""
        return 0 if self.window is None else max(0, position - self.window + 1) // self.phases
