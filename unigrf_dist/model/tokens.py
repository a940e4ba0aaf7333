"""Events become tokens: ``i_1, b_1, i_2, b_2, …`` (DESIGN: the model).

Shapes: ``E`` events, ``T = 2 E`` tokens, ``B`` users, ``D`` model width. Event ``e`` owns the tokens ``2 e``
(its item) and ``2 e + 1`` (its behaviour).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch


@dataclass(frozen=True)
class TokenLayout:
    """Where the tokens of a batch lie, in sequence and in time.

    Attributes:
        offsets: ``[B + 1]`` int64, first token of each user.
        positions: ``[E]`` int64, index of each event in its user's sequence.
        query_times: ``[T]`` int64 seconds, the moment at which a token's prediction is asked for.
        key_times: ``[T]`` int64 seconds, the moment of the token's event.
        max_length: bound on the tokens of one user, known without looking at the device.
    """

    offsets: Tensor
    positions: Tensor
    query_times: Tensor
    key_times: Tensor
    max_length: int


def token_layout(batch: JaggedBatch, *, max_length: int, query_time_visible: bool) -> TokenLayout:
    """Lay out the tokens of ``batch``.

    An item token asks at the time of its own event: the item is shown, the behaviour is not known. A behaviour
    token asks for the next item; if ``query_time_visible`` it knows the time of that next event.
    """
    times, next_times = batch.timestamps, batch.timestamps
    if query_time_visible and batch.num_events:
        next_times = torch.where(has_next_event(batch), times.roll(-1), times)
    starts = torch.repeat_interleave(batch.offsets[:-1], batch.lengths, output_size=batch.num_events)
    return TokenLayout(
        offsets=batch.offsets * 2,
        positions=torch.arange(batch.num_events, device=batch.device) - starts,
        query_times=torch.stack([times, next_times], dim=1).flatten(),
        key_times=times.repeat_interleave(2, output_size=2 * batch.num_events),
        max_length=max_length,
    )


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
