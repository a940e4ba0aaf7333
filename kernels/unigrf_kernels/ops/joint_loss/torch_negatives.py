"""The two sources of negatives: the columns that all query-positive pairs share, and the per-user columns.

A block is a run of pairs, a part or chunk some of its rows; ``b`` rows to a block, ``c`` to a part. Both sources
give the logits of a part and turn them into exponentials ``e``: with ``scale`` the pair's weight over its sum of
exponentials, the gradient of the loss with respect to a logit is ``scale * e``. Shared negatives accumulate their
gradient chunk by chunk, per-user negatives block by block.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .problem import Problem
from .torch_directions import Directions

# Per-user negatives are multiplied for the pairs of about so many users at once. Of each product only one user's
# columns are kept, so the waste grows with this number; with fewer, calls cost more than the arithmetic.
_USERS_PER_PART = 8
_MIN_PART_ROWS, _MAX_PART_ROWS = 32, 512


class SharedNegatives:
    """The ``K`` negatives that all pairs have as columns.

    Args:
        problem: arguments of the call.
        chunk_rows: most pairs in a chunk.
        is_bounded: whether logits are small enough to be exponentiated without subtracting their maximum.
    """

    def __init__(self, problem: Problem, chunk_rows: int, *, is_bounded: bool) -> None:
        self.problem, self.chunk_rows, self.is_bounded = problem, chunk_rows, is_bounded
        self.num_columns = problem.negative_ids.numel()
        self.directions = Directions(problem.negatives, problem)
        # [D, K], and so is the gradient: with a narrow contiguous D, CPU libraries multiply up to a third slower.
        self.unit_transposed = self.directions.unit.t().contiguous()
        self.grad_transposed = torch.zeros_like(self.unit_transposed)
        self.scratch = self.unit_transposed.new_empty(chunk_rows * self.num_columns)
        self.masked = None if problem.negative_mask is None else _MaskedColumns(problem, chunk_rows)
        self._find_hits()

    def _find_hits(self) -> None:
        """Index the accidental hits by bisection among the sorted ids instead of ``P x K`` comparisons.

        The hits of a pair are neighbours among the sorted ids. Numbered through the whole call, pair after pair,
        hit ``n`` of pair ``p`` is the sorted id ``n + base[p]``, so no list of all hits has to be kept.
        """
        ids, self.column_of = self.problem.negative_ids.sort(stable=True)  # [K] both
        positive_ids = self.problem.positive_ids.contiguous()
        first = torch.searchsorted(ids, positive_ids)  # [P]
        self.num_hits = torch.searchsorted(ids, positive_ids, right=True) - first  # [P]
        self.hits_before = F.pad(self.num_hits.cumsum(0), (1, 0))  # [P + 1]
        self.base = first - self.hits_before[:-1]  # [P]

    def open_block(self, rows: slice, query: Tensor) -> None:
        """Start the block of the pairs ``rows``; ``query`` ``[b, D]`` are their directions over temperature."""
        self.query = query
        if self.masked is not None:
            self.masked.open_block(rows)
        # One transfer for the block's hits: their bounds by chunk go to Python, their cells stay where they are.
        bounds = torch.arange(rows.start, rows.stop + self.chunk_rows, self.chunk_rows).clamp_(max=rows.stop)
        self.hit_bounds = self.hits_before[bounds.to(query.device)].tolist()
        begin, end = self.hit_bounds[0], self.hit_bounds[-1]
        row = torch.repeat_interleave(self.num_hits[rows], output_size=end - begin)  # [hits], row in the block
        sorted_index = torch.arange(begin, end, device=query.device).add_(self.base[rows][row])
        self.hit_cells = row.mul_(self.num_columns).add_(self.column_of[sorted_index])  # [hits], flat in [b, K]

    def logits(self, part: slice) -> Tensor:
        """``[c, K]`` logits of a part of the block, ``-inf`` for accidental hits. Valid until the next call.

        Masked columns are ``-inf`` too where logits are not bounded, since they must not raise the maximum;
        elsewhere `exponentials` clears them, which is faster.
        """
        query = self.query[part]
        logits = self.scratch[: len(query) * self.num_columns].view(len(query), self.num_columns)
        torch.mm(query, self.unit_transposed, out=logits)
        if self.problem.negative_log_q is not None:
            logits.sub_(self.problem.negative_log_q)
        self._mask_hits(logits, part)
        if self.masked is not None and not self.is_bounded:
            self.masked.fill(logits, part)
        return logits

    def exponentials(self, part: slice, logits: Tensor) -> Tensor:
        """Exponentiate ``logits`` in place; zero where the pair must not count the column."""
        logits.exp_()
        if self.masked is not None and self.is_bounded:
            self.masked.clear(logits, part)
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
        """Add what a part of the block contributes to the negatives' gradient; ``scale`` ``[c, 1]``."""
        self.grad_transposed.addmm_((self.query[part] * scale).t(), exponentials)

    def gradient(self) -> Tensor:
        """``[K, D]`` gradient of the negatives, once all blocks are collected."""
        return self.directions.gradient(self.grad_transposed.t().contiguous())


class _MaskedColumns:
    """The columns that a pair does not count because a bit of its row of the mask is set."""

    def __init__(self, problem: Problem, chunk_rows: int) -> None:
        assert problem.negative_mask is not None
        assert problem.negative_mask_rows is not None
        self.mask_rows, self.num_columns = problem.negative_mask_rows, problem.negative_ids.numel()
        self.bytes = problem.negative_mask.contiguous().view(torch.uint8)
        # For every byte, all ones (keep) or zeros (clear) for each of its eight columns, as wide as a logit: "and"
        # with a logit's bits keeps the number or makes it 0.
        self.integers = torch.int64 if problem.accumulator == torch.float64 else torch.int32
        bits = torch.arange(256, device=self.bytes.device)[:, None] >> torch.arange(8, device=self.bytes.device)
        self.keep = ((bits & 1) - 1).to(self.integers)
        self.scratch = self.keep.new_empty(chunk_rows * self.bytes.shape[1], 8)

    def open_block(self, rows: slice) -> None:
        """Start the block of the pairs ``rows``."""
        self.rows = self.mask_rows[rows]

    def clear(self, exponentials: Tensor, part: slice) -> None:
        """Set the masked columns of a part of the block to 0.

        Much faster than logits of ``-inf``, which cost a branch for each number and the slow path of ``exp``.
        """
        exponentials.view(self.integers).bitwise_and_(self._kept(part))

    def fill(self, logits: Tensor, part: slice) -> None:
        """Set the masked columns of a part of the block to ``-inf``."""
        logits.masked_fill_(self._kept(part) == 0, -torch.inf)

    def _kept(self, part: slice) -> Tensor:
        """``[c, K]``, all bits set where a column counts and none where it is masked."""
        rows = self.rows[part]
        kept = self.scratch[: len(rows) * self.bytes.shape[1]]
        torch.index_select(self.keep, 0, self.bytes.index_select(0, rows).int().flatten(), out=kept)
        return kept.view(len(rows), 8 * self.bytes.shape[1])[:, : self.num_columns]


class UserNegatives:
    """The ``M`` negatives that only the pairs of one user have as columns.

    They are few, so those of a whole block are computed when it is opened: by chunk, calls would cost more than
    the arithmetic. Pairs are multiplied part by part by the negatives of all ``u`` users in the part, which gives
    ``[c, u M]`` products, and each pair gathers the ``M`` of its user: while ``u`` is small, the products in vain
    are cheaper than a copy of a user's negatives for every pair. `close_block` scatters the exponentials into the
    same ``[c, u M]`` and multiplies again.
    """

    def __init__(self, problem: Problem) -> None:
        assert problem.user_negatives is not None
        self.problem = problem
        self.directions = Directions(problem.user_negatives.flatten(0, 1), problem)
        self.unit = self.directions.unit.view(problem.user_negatives.shape)
        self.grad = torch.zeros_like(self.unit)
        num_users, self.num_user_negatives, _ = self.unit.shape
        # The pairs of a user are neighbours in a packed batch; where they are not, parts are slower, never wrong.
        pairs_per_user = len(problem.positives) / max(num_users, 1)
        self.part_rows = int(min(max(_USERS_PER_PART * pairs_per_user, _MIN_PART_ROWS), _MAX_PART_ROWS))

    def open_block(self, rows: slice, query: Tensor) -> None:
        """Start the block of the pairs ``rows``; ``query`` ``[b, D]`` are their directions over temperature."""
        assert self.problem.retrieval_users is not None
        assert self.problem.user_negative_ids is not None
        self.query, users = query, self.problem.retrieval_users[rows]
        self.parts = [self._part(start, users) for start in range(0, len(users), self.part_rows)]
        products = [torch.mm(query[part.rows], part.columns.t()).gather(1, part.cells) for part in self.parts]
        ids = self.problem.user_negative_ids.index_select(0, users)  # [b, M]
        is_absent = (ids == -1) | (ids == self.problem.positive_ids[rows, None])
        self.exponents = torch.cat(products).masked_fill_(is_absent, -torch.inf)  # [b, M]

    def _part(self, start: int, users: Tensor) -> _Part:
        rows = slice(start, min(start + self.part_rows, len(users)))
        present, user_index = users[rows].unique(return_inverse=True)  # [u], [c]
        negative = torch.arange(self.num_user_negatives, device=users.device)
        columns = self.unit.index_select(0, present).flatten(0, 1)
        return _Part(rows, present, columns, user_index[:, None] * self.num_user_negatives + negative)

    def logits(self, part: slice) -> Tensor:
        """``[c, M]`` logits of a part of the block, ``-inf`` for absent negatives and accidental hits."""
        return self.exponents[part]

    def exponentials(self, part: slice, logits: Tensor) -> Tensor:
        """Exponentiate ``logits`` in place; `close_block` needs this done for all parts of the block."""
        return logits.exp_()

    def close_block(self, scale: Tensor, query_grad: Tensor | None) -> None:
        """Add what the block contributes to the gradient of the per-user negatives; ``scale`` ``[b, 1]``.

        Also adds ``sum_m e_m x_m'`` to ``query_grad`` ``[b, D]``.
        """
        for part in self.parts:
            # Exponentials of a pair in the columns of its user, zeros in those of the part's other users.
            spread = part.columns.new_zeros(len(part.cells), len(part.columns))  # [c, u M]
            spread.scatter_(1, part.cells, self.exponents[part.rows])
            if query_grad is not None:
                query_grad[part.rows].addmm_(spread, part.columns)
            spread.mul_(scale[part.rows])
            # A user whose pairs lie in several parts gets a sum, in the order of the parts.
            grad = torch.mm(spread.t(), self.query[part.rows])
            self.grad.index_add_(0, part.users, grad.view(len(part.users), *self.grad.shape[1:]))

    def gradient(self) -> Tensor:
        """``[U, M, D]`` gradient of the per-user negatives, once all blocks are closed."""
        return self.directions.gradient(self.grad.flatten(0, 1)).view_as(self.grad)


class _Part(NamedTuple):
    """Some pairs of a block and the ``u`` users they belong to.

    Attributes:
        rows: the ``c`` pairs, counted from the start of the block.
        users: ``[u]`` users, ascending.
        columns: ``[u M, D]`` directions of their negatives.
        cells: ``[c, M]`` int64, which of the columns belong to the user of each pair.
    """

    rows: slice
    users: Tensor
    columns: Tensor
    cells: Tensor
