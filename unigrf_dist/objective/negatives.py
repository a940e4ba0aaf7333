"""Which items the retrieval softmax tells the next one from.

Full catalogue, samples shared by the whole step, or the items of the rank's own batch. Samples are a function
of (seed, step) alone: every rank draws the same ones, so that N ranks equal one.
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
    """``K`` items, distinct or not.

    Attributes:
        ids: ``[K]`` int64 item ids.
        item_log_q: maps item ids to the log of how often a draw of ``K`` is expected to hold them, for the
            logQ correction (Yi et al., RecSys 2019, equation 3); None when every item is equally likely.
        in_batch: indices of the items' first events, when their vectors are those of the batch.
    """

    ids: Tensor
    item_log_q: Callable[[Tensor], Tensor] | None = None
    in_batch: Tensor | None = None


class NegativeSource:
    """Draws a step's negatives.

    Args:
        config: which negatives, and how many.
        popularity: ``[num_items]`` int64, training events of each item.
        seed: of the draws.
        device: where the ids go.
    """

    def __init__(self, config: RetrievalConfig, *, popularity: Tensor, seed: int, device: torch.device) -> None:
        self.config, self.seed, self.device = config, seed, device
        self.num_items = popularity.numel()
        self._catalogue = torch.arange(self.num_items, device=device)
        # Zipfian sampling asks for ranks: item of each popularity rank, and the rank of each item.
        self._by_rank = torch.argsort(popularity, descending=True, stable=True).to(device)
        self._rank = torch.empty_like(self._by_rank).index_copy_(0, self._by_rank, self._catalogue)

    def draw(self, step: int, batch: JaggedBatch) -> Negatives:
        """The negatives of step ``step`` (from 0)."""
        if self.config.negatives == "full":
            return Negatives(self._catalogue)
        if self.config.negatives == "in_batch":
            return self._from_batch(batch)
        return self._sampled(step)

    def _sampled(self, step: int) -> Negatives:
        count = self.config.num_negatives
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        if self.config.distribution == "uniform":
            return Negatives(torch.randint(self.num_items, (count,), generator=generator).to(self.device))
        # Inverse transform of P(rank) = log((rank + 2) / (rank + 1)) / log(num_items + 1).
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        ranks = torch.exp(uniform * math.log(self.num_items + 1)).long() - 1
        ids = self._by_rank[ranks.clamp_(0, self.num_items - 1).to(self.device)]
        return Negatives(ids, self._zipf_log_q if self.config.logq_correction else None)

    def _zipf_log_q(self, ids: Tensor) -> Tensor:
        rank = self._rank[ids].double()
        probability = torch.log((rank + 2) / (rank + 1)) / math.log(self.num_items + 1)
        return torch.log(self.config.num_negatives * probability).float()

    def _from_batch(self, batch: JaggedBatch) -> Negatives:
        ids, where, counts = batch.item_ids.unique(return_inverse=True, return_counts=True)
        first = torch.full_like(ids, batch.num_events)
        first.scatter_reduce_(0, where, torch.arange(batch.num_events, device=self.device), "amin")
        if not self.config.logq_correction:
            return Negatives(ids, in_batch=first)
        # An item stands in the batch in proportion to its frequency there.
        log_q = torch.zeros(self.num_items, device=self.device)
        log_q[ids] = torch.log(counts / max(batch.num_events, 1)).float()
        return Negatives(ids, log_q.__getitem__, in_batch=first)
