"""``JaggedBatch``: the only type that data and model share."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class JaggedBatch:
    """Event sequences of several users, packed end to end without padding.

    ``B`` users hold ``E`` events in total; user ``u`` owns the events
    ``offsets[u]:offsets[u + 1]``, oldest first. A user may own no event, and a batch no user.

    Attributes:
        item_ids: ``[E]`` int64, dense item ids (rows of the item table).
        behaviours: ``[E]`` int64, codes of the data set's behaviour vocabulary.
        timestamps: ``[E]`` int64, seconds.
        offsets: ``[B + 1]`` int64, starts at 0 and ends at ``E``.
        user_ids: ``[B]`` int64, dense user ids.
        user_features: ``[B, F]`` int64, codes of the users' side features; None unless requested.
        prior_item_ids: ``[S]`` int64, items of the users' prior history (the events before these), user by user;
            None unless the stream was asked for it.
        prior_offsets: ``[B + 1]`` int64, bounds of each user's items in ``prior_item_ids``; None together with it.
        context_lengths: ``[B]`` int64, how many of each user's first events are context alone: the model reads
            them, and no loss is taken on their labels or on retrieving them. None where there is no such event.
        known: ``[E]`` bool, whether the event's item has a row of its own in the item table; None if all have.
    """

    item_ids: Tensor
    behaviours: Tensor
    timestamps: Tensor
    offsets: Tensor
    user_ids: Tensor
    user_features: Tensor | None = None
    prior_item_ids: Tensor | None = None
    prior_offsets: Tensor | None = None
    context_lengths: Tensor | None = None
    known: Tensor | None = None

    @property
    def num_users(self) -> int:
        """``B``."""
        return self.user_ids.numel()

    @property
    def num_events(self) -> int:
        """``E``."""
        return self.item_ids.numel()

    @property
    def lengths(self) -> Tensor:
        """``[B]`` int64, events of each user."""
        return self.offsets.diff()

    @property
    def user_indices(self) -> Tensor:
        """``[E]`` int64, index in the batch of each event's user."""
        users = torch.arange(self.num_users, device=self.device)
        return users.repeat_interleave(self.lengths, output_size=self.num_events)

    @property
    def has_next_event(self) -> Tensor:
        """``[E]`` bool, whether the same user has a later event in the batch."""
        follows = torch.ones(self.num_events + 1, dtype=torch.bool, device=self.device)
        # The event before each user's start ends the user before. Users without events repeat an offset, and
        # index -1 (nothing before the first event) falls on the spare element at the end.
        follows[self.offsets - 1] = False
        return follows[:-1]

    @property
    def is_trained(self) -> Tensor | None:
        """``[E]`` bool, whether losses are taken on the event; None if they are on all."""
        if self.context_lengths is None:
            return None
        events = torch.arange(self.num_events, device=self.device)
        return events >= (self.offsets[:-1] + self.context_lengths)[self.user_indices]

    @property
    def device(self) -> torch.device:
        """Device of all tensors of the batch."""
        return self.item_ids.device

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> JaggedBatch:
        """A copy on ``device``; tensors already there are shared, not copied."""
        present = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {n: t.to(device, non_blocking=non_blocking) for n, t in present.items() if t is not None}
        return JaggedBatch(**moved)

    @staticmethod
    def empty() -> JaggedBatch:
        """A batch without users: what a rank yields that has run out before the others."""
        none = torch.zeros(0, dtype=torch.int64)
        return JaggedBatch(none, none, none, torch.zeros(1, dtype=torch.int64), none)
