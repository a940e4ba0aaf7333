"""Events become tokens: ``i_1, b_1, i_2, b_2, …`` (UniGRF, arXiv 2504.16454, section 3.2).

Shapes: ``E`` events, ``B`` users, ``C`` candidates per user, ``T = 2 E + B C`` tokens, ``D`` model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_kernels import AttentionPlan, plan_attention


@dataclass(frozen=True)
class TokenLayout:
    """Where the tokens of a batch lie, in sequence and in time.

    A user's tokens are the item and the behaviour of each event in turn, then the candidates, of which every
    user has the same number. A row is an index into the packed tokens, and so into the hidden matrix.

    Attributes:
        positions: ``[E]`` int64, index of each event in its user's sequence.
        token_positions: ``[T]`` int64, index of each token in its user's sequence; candidates share one.
        item_rows: ``[E]`` int64, row of each event's item token, where its behaviour is ranked.
        candidate_rows: ``[B, C]`` int64, rows of each user's candidate tokens.
        order: ``[T]`` int64, the order in which ``pack`` lays out the tokens; None without candidates.
        attention: which tokens attend to which, and the times behind the time bias; made once per batch and shared
            by all blocks. A query time is the moment for which a token predicts, a key time that of its event.
    """

    positions: Tensor
    token_positions: Tensor
    item_rows: Tensor
    candidate_rows: Tensor
    order: Tensor | None
    attention: AttentionPlan

    @property
    def behaviour_rows(self) -> Tensor:
        """``[E]`` int64, row of each event's behaviour token, where the next item is retrieved."""
        return self.item_rows + 1

    @property
    def last_rows(self) -> Tensor:
        """``[B]`` int64, row of each user's last behaviour; an arbitrary one for users without events."""
        return (self.attention.offsets[1:] - self.candidate_rows.shape[1] - 1).clamp_min(0)


def token_layout(
    batch: JaggedBatch, *, max_length: int, query_time_visible: bool, num_candidates: int = 0
) -> TokenLayout:
    """Lay out the tokens of ``batch``.

    An item token's query time is that of its own event: the item is shown at that moment and its behaviour
    predicted. A behaviour token predicts the next item: its query time is that of the next event if
    ``query_time_visible``, else that of its own. A candidate's query time is that of its user's last event.

    Args:
        batch: the events.
        max_length: most tokens of a user, candidates not counted.
        query_time_visible: whether a query knows the time of the event that it predicts.
        num_candidates: candidates of every user, after the events.
    """
    users = batch.user_indices
    positions = torch.arange(batch.num_events, device=batch.device) - batch.offsets[users]
    shift = num_candidates * torch.arange(batch.num_users + 1, device=batch.device)
    offsets = 2 * batch.offsets + shift
    candidates = torch.arange(num_candidates, device=batch.device)
    candidate_rows = offsets[1:, None] - num_candidates + candidates
    item_rows = 2 * torch.arange(batch.num_events, device=batch.device) + shift[users]
    last = _last_times(batch)[:, None].expand(-1, num_candidates)
    times, next_times = batch.timestamps, batch.timestamps
    if query_time_visible and batch.num_events:
        next_times = torch.where(batch.has_next_event, times.roll(-1), times)
    order = _pack_order(item_rows, candidate_rows)
    attention = plan_attention(
        offsets,
        num_candidates=torch.full_like(batch.user_ids, num_candidates) if num_candidates else None,
        query_times=pack(times, next_times, last.flatten(), order),
        key_times=pack(times, times, last.flatten(), order),
        max_length=max_length + num_candidates,
    )
    after = 2 * batch.lengths[:, None].expand(-1, num_candidates)
    token_positions = pack(2 * positions, 2 * positions + 1, after.flatten(), order)
    return TokenLayout(positions, token_positions, item_rows, candidate_rows, order, attention)


def _last_times(batch: JaggedBatch) -> Tensor:
    """``[B]`` int64, time of each user's last event; 0 for users without events."""
    padded = torch.nn.functional.pad(batch.timestamps, (0, 1))
    last = torch.where(batch.lengths > 0, batch.offsets[1:] - 1, batch.num_events)
    return padded[last]


def _pack_order(item_rows: Tensor, candidate_rows: Tensor) -> Tensor | None:
    """``[T]`` int64 for ``pack``; None without candidates, where items and behaviours just alternate."""
    if not candidate_rows.shape[1]:
        return None
    events = 2 * torch.arange(item_rows.numel(), device=item_rows.device)
    order = item_rows.new_empty(2 * item_rows.numel() + candidate_rows.numel())
    order[item_rows], order[item_rows + 1] = events, events + 1
    candidates = torch.arange(candidate_rows.numel(), device=item_rows.device)
    order[candidate_rows.flatten()] = 2 * item_rows.numel() + candidates
    return order


def pack(items: Tensor, behaviours: Tensor, candidates: Tensor | None, order: Tensor | None) -> Tensor:
    """Two ``[E, …]`` and one ``[B C, …]`` → ``[T, …]`` in the order of tokens."""
    events = torch.stack([items, behaviours], dim=1).flatten(0, 1)
    if order is None or candidates is None:
        return events
    # Its backward adds whole rows; that of indexing with brackets adds number by number.
    return torch.cat([events, candidates]).index_select(0, order)
