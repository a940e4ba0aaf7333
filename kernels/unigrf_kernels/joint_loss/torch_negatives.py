"""Where negatives come from: the columns all entries share, and each user's own.

Both give logits of a chunk of entries and take back exponentials ``e``: with ``scale = weight / sum of e``, the
gradient of the loss by a logit is ``scale * e``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .problem import Problem
from .torch_directions import Directions


class SharedNegatives:
    """The ``K`` columns of all entries.

    Args:
        problem: the call.
        query: ``[D, P]`` hidden directions over temperature.
        chunk_rows: the most entries of a chunk.
    """

    def __init__(self, problem: Problem, query: Tensor, chunk_rows: int) -> None:
        self.problem, self.query = problem, query
        self.directions = Directions(problem.negatives, problem)
        self.num_columns = problem.negative_ids.numel()
        self.grad = torch.zeros_like(self.directions.unit)
        self.space = query.new_empty(chunk_rows * self.num_columns)
        self._sort_ids()

    def _sort_ids(self) -> None:
        """Where the columns with an entry's own id lie: found by bisection, not by ``P x K`` comparisons."""
        ids, self.column_of = self.problem.negative_ids.sort(stable=True)
        own = self.problem.positive_ids.contiguous()
        first = torch.searchsorted(ids, own)
        self.num_hits = torch.searchsorted(ids, own, right=True) - first
        ends = self.num_hits.cumsum(0)
        # The n-th hit of the whole call belongs to some entry p; its place among the sorted ids is n + base[p].
        self.base = first - ends + self.num_hits
        self.hits_before = F.pad(ends, (1, 0))

    def logits(self, rows: slice) -> Tensor:
        """``[c, K]`` logits, ``-inf`` where the entry must not count the column; valid until the next call."""
        count = rows.stop - rows.start
        logits = self.space[: count * self.num_columns].view(count, self.num_columns)
        torch.mm(self.query[:, rows].t(), self.directions.unit, out=logits)
        if self.problem.negative_log_q is not None:
            logits.sub_(self.problem.negative_log_q)
        self._mask_hits(logits, rows)
        self._mask_history(logits, rows)
        return logits

    def _mask_hits(self, logits: Tensor, rows: slice) -> None:
        begin, end = int(self.hits_before[rows.start]), int(self.hits_before[rows.stop])
        if begin == end:
            return
        entry = torch.repeat_interleave(self.num_hits[rows], output_size=end - begin)
        place = torch.arange(begin, end, device=logits.device).add_(self.base[rows][entry])
        cells = entry.mul_(self.num_columns).add_(self.column_of[place])
        logits.view(-1).index_fill_(0, cells, -torch.inf)

    def _mask_history(self, logits: Tensor, rows: slice) -> None:
        if self.problem.negative_mask is None:
            return
        assert self.problem.retrieval_users is not None
        # Entries of one user follow one another as a rule: its bits are unpacked once.
        users, where = torch.unique_consecutive(self.problem.retrieval_users[rows], return_inverse=True)
        bit = torch.arange(32, device=logits.device, dtype=torch.int32)
        words = self.problem.negative_mask.index_select(0, users)
        hidden = ((words[:, :, None] >> bit) & 1).bool().flatten(1)[:, : self.num_columns]
        logits.masked_fill_(hidden.index_select(0, where), -torch.inf)

    def add_query_gradient(self, query_grad: Tensor, rows: slice, exponentials: Tensor) -> None:
        """Add ``sum_k e_k x_k'`` to the chunk's columns of ``query_grad`` ``[D, P]``."""
        query_grad[:, rows].addmm_(self.directions.unit, exponentials.t())

    def collect_gradient(self, rows: slice, exponentials: Tensor, scale: Tensor) -> None:
        """Add the chunk's share to the negatives' gradient."""
        self.grad.addmm_(self.query[:, rows] * scale, exponentials)

    def gradient(self) -> Tensor:
        """``[K, D]``, once all chunks are collected."""
        return self.directions.gradient(self.grad)


class UserNegatives:
    """The ``M`` columns that only the entries of one user have; arguments as in `SharedNegatives`."""

    def __init__(self, problem: Problem, query: Tensor) -> None:
        assert problem.user_negatives is not None
        assert problem.user_negative_ids is not None
        assert problem.retrieval_users is not None
        self.problem, self.query = problem, query
        self.users, self.ids = problem.retrieval_users, problem.user_negative_ids
        self.directions = Directions(problem.user_negatives.flatten(0, 1), problem)
        self.unit = self.directions.unit.t().reshape(problem.user_negatives.shape)
        self.grad = torch.zeros_like(self.unit)
        self._of_entries = self.unit

    def logits(self, rows: slice) -> Tensor:
        """``[c, M]`` logits, ``-inf`` for absent and accidentally hit ones."""
        users = self.users[rows]
        self._of_entries = self.unit.index_select(0, users)
        logits = torch.bmm(self._of_entries, self.query[:, rows].t()[:, :, None]).squeeze(2)
        ids = self.ids.index_select(0, users)
        return logits.masked_fill_((ids == -1) | (ids == self.problem.positive_ids[rows, None]), -torch.inf)

    def add_query_gradient(self, query_grad: Tensor, rows: slice, exponentials: Tensor) -> None:
        """Add ``sum_m e_m x_m'`` to the chunk's columns of ``query_grad`` ``[D, P]``."""
        query_grad[:, rows] += torch.bmm(exponentials[:, None], self._of_entries).squeeze(1).t()

    def collect_gradient(self, rows: slice, exponentials: Tensor, scale: Tensor) -> None:
        """Add the chunk's share to the users' negatives' gradient."""
        share = (exponentials * scale[:, None])[:, :, None] * self.query[:, rows].t()[:, None]
        self.grad.index_add_(0, self.users[rows], share)

    def gradient(self) -> Tensor:
        """``[U, M, D]``, once all chunks are collected."""
        return self.directions.gradient(self.grad.flatten(0, 1).t().contiguous()).view_as(self.grad)
