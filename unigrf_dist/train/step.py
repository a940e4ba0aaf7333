"""One training step: lookup, forward with the losses, global reduction, weighting, backward, update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.tables import ItemTable
from unigrf_dist.objective.negatives import NegativeSource
from unigrf_dist.objective.weighter import Weighter
from unigrf_dist.phases import Phases

_SEEDS_PER_STEP = 4096  # room for a dropout seed of each layer and rank


@dataclass(frozen=True)
class StepOutcome:
    """What a step leaves behind: values over all ranks, still on the device.

    Attributes:
        loss: ``[]``, the weighted loss that was differentiated.
        losses: ``[2]``, mean retrieval and ranking loss.
        weights: ``[2]``, their weights.
        grad_norms: ``[2]``, norms of their gradients with respect to the hidden states.
        num_events: ``[]``, events of the global batch.
        stop_asked: ``[]``, how many ranks were asked to stop.
    """

    loss: Tensor
    losses: Tensor
    weights: Tensor
    grad_norms: Tensor
    num_events: Tensor
    stop_asked: Tensor


class TrainStep:
    """The built parts of a step.

    DeepSpeed owns the dense parameters, TorchRec the table; neither sees the other's.

    Args:
        engine: DeepSpeed engine over ``UniGRF``.
        table: the item table.
        negatives: draws the step's negatives.
        weighter: balances the tasks.
        table_rate_ratio: the table's learning rate as a multiple of the dense one, whose schedule it follows.
        seed: of the dropout masks.
        phases: names the parts of the step.
    """

    def __init__(
        self,
        engine: Any,
        table: ItemTable,
        negatives: NegativeSource,
        weighter: Weighter,
        *,
        table_rate_ratio: float,
        seed: int,
        phases: Phases,
    ) -> None:
        self.engine, self.table, self.negatives, self.weighter = engine, table, negatives, weighter
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.seed, self.phases = seed, phases
        self._table_rate_ratio = table_rate_ratio

    def __call__(self, batch: JaggedBatch, step: int, *, stop_asked: bool = False) -> StepOutcome:
        """Train on this rank's share ``batch`` of global step ``step`` (from 0); collective."""
        phase = self.phases
        self.table.begin_step(step, self.learning_rate * self._table_rate_ratio)
        with phase("tables"):
            negatives = self.negatives.draw(step, batch)
            items, negative_vectors = self._lookup(batch, negatives.ids, negatives.in_batch)
        with phase("forward"):
            *sums, counts_and_norms = self.engine(
                items, batch, negatives, negative_vectors, seed=self._dropout_seed(step)
            )
        with phase("collectives"):
            outcome, counts = self._reduce(sums, counts_and_norms, batch.num_events, stop_asked)
        with phase("backward"):
            # Dense and table gradients are averaged over the ranks, the loss is a mean over the positions of
            # all ranks: hence the factor.
            shares = torch.stack(sums) / counts * outcome.weights
            self.engine.backward(shares.sum() * self.world_size)
        with phase("optimizer"):
            self.engine.step()
        return outcome

    @property
    def learning_rate(self) -> float:
        return float(self.engine.optimizer.param_groups[0]["lr"])

    def _lookup(self, batch: JaggedBatch, negative_ids: Tensor, in_batch: Tensor | None) -> tuple[Tensor, Tensor]:
        if in_batch is not None:
            items = self.table.lookup(batch.item_ids)
            return items, items[in_batch]
        vectors = self.table.lookup(torch.cat([batch.item_ids, negative_ids]))
        return vectors[: batch.num_events], vectors[batch.num_events :]

    def _reduce(
        self, sums: list[Tensor], counts_and_norms: Tensor, num_events: int, stop_asked: bool
    ) -> tuple[StepOutcome, Tensor]:
        """One packed all-reduce; the decisions taken from it are the same on every rank."""
        local = torch.tensor([num_events, stop_asked], dtype=torch.float32, device=counts_and_norms.device)
        packed = torch.cat([torch.stack(sums).detach(), counts_and_norms.detach(), local])
        dist.all_reduce(packed)
        totals, counts, sq_norms, (events, stops) = packed.split([2, 2, 2, 2])
        counts = counts.clamp(min=1.0)
        losses, grad_norms = totals / counts, sq_norms.sqrt() / counts
        # Before backward, because the fused table update happens inside it.
        torch._assert_async(torch.isfinite(losses).all(), "a task's loss is not finite")
        weights = self.weighter.update(losses, grad_norms)
        return StepOutcome((losses * weights).sum(), losses, weights, grad_norms, events, stops), counts

    def _dropout_seed(self, step: int) -> int:
        """Of (seed, step, rank) alone: a resumed run draws the masks of an uninterrupted one."""
        return ((self.seed * 1_000_003 + step) * self.world_size + self.rank) * _SEEDS_PER_STEP % (1 << 62)
