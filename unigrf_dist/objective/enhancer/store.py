"""Candidates between two rounds: on the host of the rank that reads their users."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.config.schema import EnhancerConfig
from unigrf_dist.objective.enhancer.candidates import NO_ITEM


class CandidateStore:
    """Candidates of this rank's users: ``4 C`` bytes of host memory per user.

    They are what a user would be shown next, so of several chunks of a user they belong to the latest alone.

    Args:
        config: number of candidates, warm-up and length of a round.
        user_ids: ``[U]`` int64, dense ids of this rank's users, in the order of the stream.
        first_row: how many users of other ranks come before them in that order.
    """

    def __init__(self, config: EnhancerConfig, user_ids: Tensor, *, first_row: int = 0) -> None:
        self.config, self.user_ids, self.first_row = config, user_ids, first_row
        self._ascending, self._order = user_ids.sort()
        self._ids = torch.full((user_ids.numel(), config.candidates), NO_ITEM, dtype=torch.int32)
        self._pending: _Copy | None = None

    def read(self, users: Tensor, latest: Tensor | None = None) -> Tensor | None:
        """``[B, C]`` int64 candidates of ``users``; None if none of them has any.

        Ranks may differ in which of the two they get: no collective depends on it.

        Args:
            users: ``[B]`` int64 dense user ids.
            latest: ``[B]`` bool, which of them come with their latest chunk; the others, whose candidates may be
                on another rank, get none. None where all do.
        """
        if latest is not None:
            found = self.read(users[latest])
            if found is None:
                return None
            return found.new_full((users.numel(), found.shape[1]), NO_ITEM).index_put_((latest,), found)
        if self._pending is not None and torch.isin(users, self._pending.users).any():
            self.flush()
        ids = self._ids[self._rows(users)]
        return ids.long() if (ids != NO_ITEM).any() else None

    def renews(self, epoch: int) -> bool:
        """Whether epoch ``epoch`` (from 0) is the last of a round, in which candidates are selected anew."""
        rounds = epoch + 1 - self.config.warmup_epochs
        return rounds >= 0 and rounds % self.config.round_epochs == 0

    def write(self, users: Tensor, ids: Tensor, latest: Tensor | None = None) -> None:
        """Keep ``[B, C]`` candidates of ``users``; does not wait for the device that computes them.

        Args:
            users: ``[B]`` int64 dense user ids, on the host.
            ids: ``[B, C]`` int64 item ids.
            latest: ``[B]`` bool, on the host, see ``read``; those of the others are dropped.
        """
        self.flush()
        self._pending = _Copy.of(users, ids, latest)

    def flush(self) -> None:
        """Finish the last ``write``."""
        if self._pending is not None:
            self._ids[self._rows(self._pending.users)] = self._pending.result().int()
            self._pending = None

    def fill(self, num_items: int) -> None:
        """Give every user arbitrary candidates, for a measurement that starts after the first rounds."""
        generator = torch.Generator().manual_seed(0)
        self._ids.copy_(torch.randint(num_items, self._ids.shape, generator=generator))

    def values(self) -> Tensor:
        """``[U, C]`` int32, the candidates of ``user_ids``; a view, to be saved or loaded into."""
        self.flush()
        return self._ids

    def _rows(self, users: Tensor) -> Tensor:
        return self._order[torch.searchsorted(self._ascending, users)]


@dataclass(frozen=True)
class _Copy:
    """Candidates on their way to the host, of which ``latest`` ``[B]`` are kept; None keeps all."""

    users: Tensor
    ids: Tensor
    latest: Tensor | None
    arrived: torch.cuda.Event | None

    @staticmethod
    def of(users: Tensor, ids: Tensor, latest: Tensor | None) -> _Copy:
        copy = ids.to("cpu", non_blocking=True)
        arrived = None
        if ids.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        return _Copy(users if latest is None else users[latest], copy, latest, arrived)

    def result(self) -> Tensor:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.ids if self.latest is None else self.ids[self.latest]
