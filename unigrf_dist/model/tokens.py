"""Events become tokens: ``i_1, b_1, i_2, b_2, …`` (DESIGN: the model).

Shapes: ``E`` events, ``B`` users, ``C`` candidates per user, ``T = 2 E + B C`` tokens, ``D`` model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_kernels.ops.jagged_attention import AttentionPlan, plan_attention


@dataclass(frozen=True)
class TokenLayout:
    """Where the tokens of a batch lie, in sequence and in time.

    A user's tokens are the item and the behaviour of each event in turn, then the candidates, of which every
    user has as many.

    Attributes:
        positions: ``[E]`` int64, index of each event in its user's sequence.
        token_positions: ``[T]`` int64, index of each token in its user's sequence; candidates share one.
        item_rows: ``[E]`` int64, token of each event's item; that of its behaviour comes next.
        candidate_rows: ``[B, C]`` int64.
        order: what ``pack`` asks for.
        attention: who sees whom and when; made once per batch and shared by all blocks. Its query times are
            the moments at which a token's prediction is asked for, its key times those of the token's event.
    """

    positions: Tensor
    token_positions: Tensor
    item_rows: Tensor
    candidate_rows: Tensor
    order: Tensor | None
    attention: AttentionPlan


def token_layout(
    batch: JaggedBatch, *, max_length: int, query_time_visible: bool, num_candidates: int = 0
) -> TokenLayout:
    """Lay out the tokens of ``batch``.

    An item token asks at the time of its own event: the item is shown, the behaviour is not known. A behaviour
    token asks for the next item; if ``query_time_visible`` it knows the time of that next event. A candidate
    asks at the time of its user's last event.

    Args:
        batch: the events.
        max_length: most tokens of a user, without candidates.
        query_time_visible: see above.
        num_candidates: candidates of every user, behind the events.
    """
    users = torch.repeat_interleave(
        torch.arange(batch.num_users, device=batch.device), batch.lengths, output_size=batch.num_events
    )
    positions = torch.arange(batch.num_events, device=batch.device) - batch.offsets[users]
    shift = num_candidates * torch.arange(batch.num_users + 1, device=batch.device)
    offsets = 2 * batch.offsets + shift
    candidates = torch.arange(num_candidates, device=batch.device)
    candidate_rows = offsets[1:, None] - num_candidates + candidates
    item_rows = 2 * torch.arange(batch.num_events, device=batch.device) + shift[users]
    last = _last_times(batch)[:, None].expand(-1, num_candidates)
    times, next_times = batch.timestamps, batch.timestamps
    if query_time_visible and batch.num_events:
        next_times = torch.where(has_next_event(batch), times.roll(-1), times)
    order = _pack_order(item_rows, candidate_rows)
    attention = plan_attention(
        offsets,
        num_candidates=torch.full_like(batch.user_ids, num_candidates) if num_candidates else None,
        query_times=pack(times, next_times, last.flatten(), order),
        key_times=pack(times, times, last.flatten(), order),
        max_length=max_length + num_candidates,
    )
    behind = 2 * batch.lengths[:, None].expand(-1, num_candidates)
    token_positions = pack(2 * positions, 2 * positions + 1, behind.flatten(), order)
    return TokenLayout(positions, token_positions, item_rows, candidate_rows, order, attention)


def has_next_event(batch: JaggedBatch) -> Tensor:
    """``[E]`` bool, whether the same user has a later event in the batch."""
    follows = torch.ones(batch.num_events + 1, dtype=torch.bool, device=batch.device)
    # The event before each user's start ends the user before. Users without events repeat an offset, and
    # index -1 (nothing before the first event) falls on the spare place at the end.
    follows[batch.offsets - 1] = False
    return follows[:-1]


def _last_times(batch: JaggedBatch) -> Tensor:
    """``[B]`` int64, time of each user's last event; 0 for users without events."""
    padded = torch.nn.functional.pad(batch.timestamps, (0, 1))
    last = torch.where(batch.lengths > 0, batch.offsets[1:] - 1, batch.num_events)
    return padded[last]


def _pack_order(item_rows: Tensor, candidate_rows: Tensor) -> Tensor | None:
    """``[T]`` int64, where ``pack`` finds each token; None without candidates, where tokens just alternate."""
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
