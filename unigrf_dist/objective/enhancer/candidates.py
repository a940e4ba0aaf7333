"""Which items ride along as a user's candidates in the next round.

Shapes: ``B`` users, ``C`` candidates per user, ``K`` negatives, of which ``U`` are distinct items, ``D`` width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.objective.negatives import Negatives
from unigrf_dist.objective.seen import seen_items

NO_ITEM = -1
"""Id where there is no item."""


@dataclass(frozen=True)
class Candidates:
    """The candidates of a batch's users.

    Attributes:
        ids: ``[B, C]`` int64; ``NO_ITEM`` where there is none.
        vectors: ``[B, C, D]`` item vectors; arbitrary where there is no item.
        side: ``[B, C, D]``, what side features add to them in the tokens; None without features.
    """

    ids: Tensor
    vectors: Tensor
    side: Tensor | None = None


def select_candidates(
    queries: Tensor,
    vectors: Tensor,
    negatives: Negatives,
    batch: JaggedBatch,
    current: Candidates | None,
    *,
    num_candidates: int,
    num_items: int,
) -> Tensor:
    """The candidates of the next round: the best unseen of the step's negatives and of the current candidates.

    The negatives are at hand already, so the selection costs one product. A batch holds training events alone, so
    nothing of the held-out ones can leak into the result.

    Args:
        queries: ``[B, D]`` hidden state after each user's last event.
        vectors: ``[K, D]`` vectors of the negatives, as retrieval compares them.
        negatives: negatives of the step.
        batch: says what the users have seen, prior history included.
        current: candidates of this round, their vectors as retrieval compares them.
        num_candidates: ``C``.
        num_items: size of the catalogue.

    Returns:
        ``[B, C]`` int64, best first.
    """
    ids = negatives.ids
    if not negatives.distinct:
        # A sample may be drawn twice; its vector is the same, so either copy will do.
        ids, which = ids.unique(return_inverse=True)
        vectors = vectors.new_empty(ids.numel(), vectors.shape[1]).index_copy_(0, which, vectors)
    # The score matrix has U columns for the distinct negatives, one spare column, then the current candidates.
    # Every item has a column: that of its negative, or the spare one, so that seen items can be struck out by one
    # scatter without asking which of them are negatives.
    spare = ids.numel()
    column_of_item = torch.full((num_items,), spare, device=ids.device)
    column_of_item[ids] = torch.arange(spare, device=ids.device)
    num_current = 0 if current is None else current.ids.shape[1]
    scores = queries.new_empty(queries.shape[0], spare + 1 + num_current)
    torch.mm(queries, vectors.T, out=scores[:, :spare])
    scores[:, spare] = -torch.inf
    for users, items in seen_items(batch):
        scores[users, column_of_item[items]] = -torch.inf
    if current is not None:
        # A current candidate that is a negative too has a column already and must not be selected twice. One that
        # its user has seen since cannot occur: within a round a user's training events stay the same.
        repeated = (current.ids == NO_ITEM) | (column_of_item[current.ids.clamp_min(0)] < spare)
        current_scores = torch.einsum("bd,bcd->bc", queries, current.vectors)
        scores[:, spare + 1 :] = current_scores.masked_fill_(repeated, -torch.inf)
    best, columns = scores.topk(min(num_candidates, scores.shape[1]), dim=1)
    selected = torch.nn.functional.pad(ids, (0, 1), value=NO_ITEM)[columns.clamp_max(spare)]
    if current is not None:
        kept = current.ids.gather(1, (columns - spare - 1).clamp_min(0))
        selected = torch.where(columns > spare, kept, selected)
    selected.masked_fill_(best == -torch.inf, NO_ITEM)
    return torch.nn.functional.pad(selected, (0, num_candidates - selected.shape[1]), value=NO_ITEM)
