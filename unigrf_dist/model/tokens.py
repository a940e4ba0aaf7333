"""Events become tokens: ``i_1, b_1, i_2, b_2, …`` (DESIGN: the model).

Shapes: ``E`` events, ``T = 2 E`` tokens, ``B`` users, ``D`` model width. Event ``e`` owns the tokens ``2 e``
(its item) and ``2 e + 1`` (its behaviour).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_kernels.jagged_attention import AttentionPlan, plan_attention


@dataclass(frozen=True)
class TokenLayout:
    """Where the tokens of a batch lie, in sequence and in time.

    Attributes:
        positions: ``[E]`` int64, index of each event in its user's sequence.
        attention: who sees whom and when; made once per batch and shared by all blocks. Its query times are
            the moments at which a token's prediction is asked for, its key times those of the token's event.
    """

    positions: Tensor
    attention: AttentionPlan


def token_layout(batch: JaggedBatch, *, max_length: int, query_time_visible: bool) -> TokenLayout:
    """Lay out the tokens of ``batch``, whose users have at most ``max_length`` of them.

    An item token asks at the time of its own event: the item is shown, the behaviour is not known. A behaviour
    token asks for the next item; if ``query_time_visible`` it knows the time of that next event.
    """
    times, next_times = batch.timestamps, batch.timestamps
    if query_time_visible and batch.num_events:
        next_times = torch.where(has_next_event(batch), times.roll(-1), times)
    starts = torch.repeat_interleave(batch.offsets[:-1], batch.lengths, output_size=batch.num_events)
    attention = plan_attention(
        batch.offsets * 2,
        query_times=torch.stack([times, next_times], dim=1).flatten(),
        key_times=times.repeat_interleave(2, output_size=2 * batch.num_events),
        max_length=max_length,
    )
    return TokenLayout(torch.arange(batch.num_events, device=batch.device) - starts, attention)


def has_next_event(batch: JaggedBatch) -> Tensor:
    """``[E]`` bool, whether the same user has a later event in the batch."""
    follows = torch.ones(batch.num_events + 1, dtype=torch.bool, device=batch.device)
    # The event before each user's start ends the user before. Users without events repeat an offset, and
    # index -1 (nothing before the first event) falls on the spare place at the end.
    follows[batch.offsets - 1] = False
    return follows[:-1]


def interleave(item_tokens: Tensor, behaviour_tokens: Tensor) -> Tensor:
    """Two ``[E, D]`` → ``[2 E, D]``, item token first."""
    return torch.stack([item_tokens, behaviour_tokens], dim=1).flatten(0, 1)
