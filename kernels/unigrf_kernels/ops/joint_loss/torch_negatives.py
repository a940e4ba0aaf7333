"""Where negatives come from: the columns that all entries share, and each user's own.

Both give logits of a chunk of entries and turn them into exponentials ``e``: with ``scale`` the entry's weight
over its sum of exponentials, the gradient of the loss by a logit is ``scale * e``. The shared ones collect
gradients chunk by chunk, a user's own block by block.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .problem import Problem
from .torch_directions import Directions

# Entries whose users' own negatives are multiplied at once: those of so many users, within these bounds.
_USERS_AT_A_TIME = 8
_FEWEST_ROWS, _MOST_ROWS = 32, 512


class SharedNegatives:
    """The ``K`` columns of all entries.

    Args:
        problem: the call.
        chunk_rows: the most entries of a chunk.
        is_bounded: whether exponentials of logits can be taken as they are.
    """

    def __init__(self, problem: Problem, chunk_rows: int, *, is_bounded: bool) -> None:
        self.problem, self.chunk_rows, self.is_bounded = problem, chunk_rows, is_bounded
        self.num_columns = problem.negative_ids.numel()
        self.directions = Directions(problem.negatives, problem)
        # Where the narrow D would be the contiguous side, CPU libraries multiply up to a third slower.
        self.unit_transposed = self.directions.unit.t().contiguous()
        self.grad_transposed = torch.zeros_like(self.unit_transposed)
        self.space = self.unit_transposed.new_empty(chunk_rows * self.num_columns)
        self.hidden = None if problem.negative_mask is None else _HiddenColumns(problem, chunk_rows)
        self._find_hits()

    def _find_hits(self) -> None:
        """Where the columns with an entry's own id lie: found by bisection, not by ``P x K`` comparisons."""
        ids, self.column_of = self.problem.negative_ids.sort(stable=True)
        own = self.problem.positive_ids.contiguous()
        first = torch.searchsorted(ids, own)
        self.num_hits = torch.searchsorted(ids, own, right=True) - first
        self.hits_before = F.pad(self.num_hits.cumsum(0), (1, 0))
        # The n-th hit of the whole call belongs to some entry p; its place among the sorted ids is n + base[p].
        self.base = first - self.hits_before[:-1]

    def open_block(self, rows: slice, query: Tensor) -> None:
        """Turn to the entries ``rows`` with directions over temperature ``query`` ``[b, D]``."""
        self.query = query
        if self.hidden is not None:
            self.hidden.open_block(rows)
        bounds = torch.arange(rows.start, rows.stop + self.chunk_rows, self.chunk_rows).clamp_(max=rows.stop)
        self.hit_bounds = self.hits_before[bounds.to(query.device)].tolist()
        begin, end = self.hit_bounds[0], self.hit_bounds[-1]
        entry = torch.repeat_interleave(self.num_hits[rows], output_size=end - begin)
        place = torch.arange(begin, end, device=query.device).add_(self.base[rows][entry])
        self.hit_cells = entry.mul_(self.num_columns).add_(self.column_of[place])

    def logits(self, part: slice) -> Tensor:
        """``[c, K]`` logits of a part of the block, ``-inf`` where the entry must not count the column.

        What the mask hides is so only where logits are not bounded. Valid until the next call.
        """
        query = self.query[part]
        logits = self.space[: len(query) * self.num_columns].view(len(query), self.num_columns)
        torch.mm(query, self.unit_transposed, out=logits)
        if self.problem.negative_log_q is not None:
            logits.sub_(self.problem.negative_log_q)
        self._mask_hits(logits, part)
        if self.hidden is not None and not self.is_bounded:
            self.hidden.hide(logits, part)
        return logits

    def exponentials(self, part: slice, logits: Tensor) -> Tensor:
        """Those of ``logits``, in their place, zero where the entry must not count the column."""
        logits.exp_()
        if self.hidden is not None and self.is_bounded:
            self.hidden.clear(logits, part)
        return logits

    def _mask_hits(self, logits: Tensor, part: slice) -> None:
        chunk = part.start // self.chunk_rows
        begin, end = (self.hit_bounds[chunk + side] - self.hit_bounds[0] for side in (0, 1))
        if begin < end:
            cells = self.hit_cells[begin:end] - part.start * self.num_columns
            logits.view(-1).index_fill_(0, cells, -torch.inf)

    def add_query_gradient(self, query_grad: Tensor, exponentials: Tensor) -> None:
        """Add ``sum_k e_k x_k'`` to ``query_grad`` ``[c, D]``."""
        query_grad.addmm_(exponentials, self.directions.unit)

    def collect_gradient(self, part: slice, exponentials: Tensor, scale: Tensor) -> None:
        """Add the share of a part of the block to the negatives' gradient; ``scale`` ``[c, 1]``."""
        self.grad_transposed.addmm_((self.query[part] * scale).t(), exponentials)

    def gradient(self) -> Tensor:
        """``[K, D]``, once all blocks are collected."""
        return self.directions.gradient(self.grad_transposed.t().contiguous())


class _HiddenColumns:
    """The columns that a row of the bit mask hides from an entry."""

    def __init__(self, problem: Problem, chunk_rows: int) -> None:
        assert problem.negative_mask is not None
        assert problem.negative_mask_rows is not None
        self.rows_of_entries, self.num_columns = problem.negative_mask_rows, problem.negative_ids.numel()
        self.bytes = problem.negative_mask.contiguous().view(torch.uint8)
        # What keeps or clears a number when its bits are joined with it, for the eight columns of every byte.
        self.integers = torch.int64 if problem.accumulator == torch.float64 else torch.int32
        bits = torch.arange(256, device=self.bytes.device)[:, None] >> torch.arange(8, device=self.bytes.device)
        self.keep = ((bits & 1) - 1).to(self.integers)
        self.space = self.keep.new_empty(chunk_rows * self.bytes.shape[1], 8)

    def open_block(self, rows: slice) -> None:
        """Turn to the entries ``rows``."""
        self.rows = self.rows_of_entries[rows]

    def clear(self, exponentials: Tensor, part: slice) -> None:
        """Make zeros of the hidden columns of a part of the block.

        Faster by far than logits of ``-inf``: a branch for each number, and the slow path of ``exp``.
        """
        exponentials.view(self.integers).bitwise_and_(self._kept(part))

    def hide(self, logits: Tensor, part: slice) -> None:
        """Make ``-inf`` of the hidden columns of a part of the block."""
        logits.masked_fill_(self._kept(part) == 0, -torch.inf)

    def _kept(self, part: slice) -> Tensor:
        """``[c, K]``, all bits set where a column counts and none where it is hidden."""
        rows = self.rows[part]
        kept = self.space[: len(rows) * self.bytes.shape[1]]
        torch.index_select(self.keep, 0, self.bytes.index_select(0, rows).int().flatten(), out=kept)
        return kept.view(len(rows), 8 * self.bytes.shape[1])[:, : self.num_columns]


class UserNegatives:
    """The ``M`` columns that only the entries of one user have.

    They are few, so a block's are worked out at once: chunk by chunk, calls would cost more than the numbers.
    Some entries at a time are multiplied by the columns of all their users, of which each keeps its own: while
    users are few, products in vain are cheaper than a copy of its columns for every entry.
    """

    def __init__(self, problem: Problem) -> None:
        assert problem.user_negatives is not None
        self.problem = problem
        self.directions = Directions(problem.user_negatives.flatten(0, 1), problem)
        self.unit = self.directions.unit.view(problem.user_negatives.shape)
        self.grad = torch.zeros_like(self.unit)
        num_users, self.num_own, _ = self.unit.shape
        entries_per_user = len(problem.positives) / max(num_users, 1)
        self.part_rows = int(min(max(_USERS_AT_A_TIME * entries_per_user, _FEWEST_ROWS), _MOST_ROWS))

    def open_block(self, rows: slice, query: Tensor) -> None:
        """Turn to the entries ``rows`` with directions over temperature ``query`` ``[b, D]``."""
        assert self.problem.retrieval_users is not None
        assert self.problem.user_negative_ids is not None
        self.query, users = query, self.problem.retrieval_users[rows]
        self.parts = [self._part(start, users) for start in range(0, len(users), self.part_rows)]
        products = [torch.mm(query[part.rows], part.columns.t()).gather(1, part.cells) for part in self.parts]
        ids = self.problem.user_negative_ids.index_select(0, users)
        is_absent = (ids == -1) | (ids == self.problem.positive_ids[rows, None])
        self.exponents = torch.cat(products).masked_fill_(is_absent, -torch.inf)

    def _part(self, start: int, users: Tensor) -> _Part:
        rows = slice(start, min(start + self.part_rows, len(users)))
        present, place = users[rows].unique(return_inverse=True)
        own = torch.arange(self.num_own, device=users.device)
        columns = self.unit.index_select(0, present).flatten(0, 1)
        return _Part(rows, present, columns, place[:, None] * self.num_own + own)

    def logits(self, part: slice) -> Tensor:
        """``[c, M]`` logits of a part of the block, ``-inf`` for absent and accidentally hit ones."""
        return self.exponents[part]

    def exponentials(self, part: slice, logits: Tensor) -> Tensor:
        """Those of ``logits``, in their place; once all parts have been asked for, the block can be closed."""
        return logits.exp_()

    def close_block(self, scale: Tensor, query_grad: Tensor | None) -> None:
        """Collect the block's share of the users' negatives' gradient; ``scale`` ``[b, 1]``.

        Also adds ``sum_m e_m x_m'`` to ``query_grad`` ``[b, D]``.
        """
        for part in self.parts:
            spread = part.columns.new_zeros(len(part.cells), len(part.columns))
            spread.scatter_(1, part.cells, self.exponents[part.rows])
            if query_grad is not None:
                query_grad[part.rows].addmm_(spread, part.columns)
            spread.mul_(scale[part.rows])
            share = torch.mm(spread.t(), self.query[part.rows])
            self.grad.index_add_(0, part.users, share.view(len(part.users), *self.grad.shape[1:]))

    def gradient(self) -> Tensor:
        """``[U, M, D]``, once all blocks are closed."""
        return self.directions.gradient(self.grad.flatten(0, 1)).view_as(self.grad)


class _Part(NamedTuple):
    """Some entries of a block: their ``u`` users, the ``[u M, D]`` columns of those, ``[c, M]`` an entry's own."""

    rows: slice
    users: Tensor
    columns: Tensor
    cells: Tensor
