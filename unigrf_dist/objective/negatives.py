"""Negatives of the retrieval softmax.

The full catalogue, samples shared by the whole step, the items of the rank's own batch, or both of the latter.
Samples are a function of (seed, step) alone: every rank draws the same ones, so that N ranks equal one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.config.schema import RetrievalConfig
from unigrf_dist.data.batch import JaggedBatch


@dataclass(frozen=True)
class Negatives:
    """The ``K`` negatives of a step.

    Attributes:
        ids: ``[K]`` int64 item ids.
        distinct: whether no id occurs twice.
        item_log_q: maps item ids to the log of how often they are expected among the negatives, for the logQ
            correction (Yi et al., RecSys 2019, equation 3); None when every item is equally likely.
        in_batch: ``[N]`` int64 events of the batch whose items are the first ``N`` negatives: their vectors have
            been looked up already. None when no negative comes from the batch.
    """

    ids: Tensor
    distinct: bool
    item_log_q: Callable[[Tensor], Tensor] | None = None
    in_batch: Tensor | None = None

    @property
    def looked_up(self) -> Tensor:
        """``[K - N]`` int64, the negatives whose vectors must be looked up."""
        return self.ids if self.in_batch is None else self.ids[self.in_batch.numel() :]


class NegativeSource:
    """Draws a step's negatives.

    Args:
        config: kind and number of negatives.
        popularity: ``[num_items]`` int64, training events of each item.
        seed: seed of the negative sampler.
        device: device of the ids.
    """

    def __init__(self, config: RetrievalConfig, *, popularity: Tensor, seed: int, device: torch.device) -> None:
        self.config, self.seed, self.device = config, seed, device
        self.num_items = popularity.numel()
        self._share = (popularity / popularity.sum().clamp_min(1)).to(device)
        self._all_by_rank = torch.argsort(popularity, descending=True, stable=True).to(device)
        self._restrict(torch.arange(self.num_items, device=device))

    def draw(self, step: int, batch: JaggedBatch, live_ids: Tensor | None = None) -> Negatives:
        """The negatives of step ``step`` (from 0).

        Args:
            step: step of the run.
            batch: the events of this rank.
            live_ids: ``[L]`` int64, the items that may be negatives at all, ascending; the same object as before
                where they are the same. None for all.
        """
        if live_ids is not None and live_ids is not self._catalogue:
            self._restrict(live_ids)
        kind, corrected = self.config.negatives, self.config.logq_correction
        if kind == "full":
            return Negatives(self._catalogue, distinct=True)
        if kind == "sampled":
            # Uniform samples need no correction: it would be the same for all.
            log_q = (lambda ids: self._expected_samples(ids).log()) if corrected and self._is_zipfian else None
            return Negatives(self._samples(step), False, log_q)
        ids, first = self._batch_items(batch)
        if kind == "in_batch":
            return Negatives(ids, True, self._log_q(batch, with_samples=False) if corrected else None, first)
        both = torch.cat([ids, self._samples(step)])
        return Negatives(both, False, self._log_q(batch, with_samples=True) if corrected else None, first)

    def _restrict(self, catalogue: Tensor) -> None:
        """Draw from the items of ``catalogue`` from now on."""
        self._catalogue = catalogue
        if not self._is_zipfian:
            return
        # Zipfian sampling draws popularity ranks: the item of each rank, and the rank of each item.
        present = torch.zeros(self.num_items, dtype=torch.bool, device=self.device)
        present[catalogue] = True
        self._by_rank = self._all_by_rank[present[self._all_by_rank]]
        self._rank = torch.zeros(self.num_items, dtype=torch.int64, device=self.device)
        self._rank[self._by_rank] = torch.arange(self._by_rank.numel(), device=self.device)

    @property
    def _is_zipfian(self) -> bool:
        return self.config.distribution == "log_popularity"

    def _samples(self, step: int) -> Tensor:
        count, size = self.config.num_negatives, self._catalogue.numel()
        if not size:
            return self._catalogue
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        if not self._is_zipfian:
            return self._catalogue[torch.randint(size, (count,), generator=generator).to(self.device)]
        # Inverse transform of P(rank) = log((rank + 2) / (rank + 1)) / log(size + 1).
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        ranks = torch.exp(uniform * math.log(size + 1)).long() - 1
        return self._by_rank[ranks.clamp_(0, size - 1).to(self.device)]

    def _expected_samples(self, ids: Tensor) -> Tensor:
        """Expected number of times that each of ``ids`` is drawn."""
        count, size = self.config.num_negatives, max(self._catalogue.numel(), 1)
        if not self._is_zipfian:
            return torch.full(ids.shape, count / size, device=ids.device)
        rank = self._rank[ids].double()
        return (count * torch.log((rank + 2) / (rank + 1)) / math.log(size + 1)).float()

    def _batch_items(self, batch: JaggedBatch) -> tuple[Tensor, Tensor]:
        """The batch's known items, each once, and the first event of each."""
        events = torch.arange(batch.num_events, device=self.device)
        if batch.known is not None:
            events = events[batch.known]
        ids, where = batch.item_ids[events].unique(return_inverse=True)
        first = torch.full_like(ids, batch.num_events)
        first.scatter_reduce_(0, where, events, "amin")
        return ids, first

    def _log_q(self, batch: JaggedBatch, *, with_samples: bool) -> Callable[[Tensor], Tensor]:
        def log_q(ids: Tensor) -> Tensor:
            # A batch holds an item once as a negative, unless each of its events is of another item: 1 - (1 -
            # share)^E.
            share = self._share[ids].double().clamp(1e-12, 1 - 1e-12)
            expected = -torch.expm1(batch.num_events * torch.log1p(-share))
            if with_samples:
                expected = expected + self._expected_samples(ids)
            return expected.log().float()

        return log_q
