"""Where proposals lie between two rounds: on the host of the rank that reads their users."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.config.schema import EnhancerConfig
from unigrf_dist.objective.enhancer.candidates import NO_ITEM


class CandidateStore:
    """Proposals of this rank's users: ``4 C`` bytes of host memory for each.

    Args:
        config: how many, and the rounds.
        user_ids: ``[U]`` int64, this rank's users, ascending.
    """

    def __init__(self, config: EnhancerConfig, user_ids: Tensor) -> None:
        self.config, self.user_ids = config, user_ids
        self._ids = torch.full((user_ids.numel(), config.candidates), NO_ITEM, dtype=torch.int32)
        self._coming: _Copy | None = None

    def read(self, users: Tensor) -> Tensor | None:
        """``[B, C]`` int64 proposals of ``users``; None if there are none at all.

        Which of the two is this rank's own affair: no collective depends on it.
        """
        if self._coming is not None and torch.isin(users, self._coming.users).any():
            self.flush()
        ids = self._ids[self._rows(users)]
        return ids.long() if (ids != NO_ITEM).any() else None

    def renews(self, epoch: int) -> bool:
        """Whether epoch ``epoch`` (from 0) is the last of a round, in which new proposals are found."""
        rounds = epoch + 1 - self.config.warmup_epochs
        return rounds >= 0 and rounds % self.config.round_epochs == 0

    def write(self, users: Tensor, ids: Tensor) -> None:
        """Keep ``[B, C]`` proposals of ``users``; does not wait for the device that finds them."""
        self.flush()
        self._coming = _Copy.of(users, ids)

    def flush(self) -> None:
        """Finish the last ``write``."""
        if self._coming is not None:
            self._ids[self._rows(self._coming.users)] = self._coming.result().int()
            self._coming = None

    def fill(self, num_items: int) -> None:
        """Propose arbitrary items to everyone, for a measurement that begins after the first rounds."""
        generator = torch.Generator().manual_seed(0)
        self._ids.copy_(torch.randint(num_items, self._ids.shape, generator=generator))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds of this rank."""
        self.flush()
        return {"users": self.user_ids, "items": self._ids}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over this rank's users from the state of any rank of the run that saved it."""
        users, ids = state["users"], state["items"]
        if not users.numel() or not self.user_ids.numel():
            return
        place = torch.searchsorted(self.user_ids, users).clamp_max(self.user_ids.numel() - 1)
        mine = self.user_ids[place] == users
        kept = min(ids.shape[1], self._ids.shape[1])
        self._ids[place[mine], :kept] = ids[mine, :kept]

    def _rows(self, users: Tensor) -> Tensor:
        return torch.searchsorted(self.user_ids, users)


@dataclass(frozen=True)
class _Copy:
    """Proposals on their way to the host."""

    users: Tensor
    ids: Tensor
    arrived: torch.cuda.Event | None

    @staticmethod
    def of(users: Tensor, ids: Tensor) -> _Copy:
        copy = ids.to("cpu", non_blocking=True)
        arrived = None
        if ids.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        return _Copy(users, copy, arrived)

    def result(self) -> Tensor:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.ids
