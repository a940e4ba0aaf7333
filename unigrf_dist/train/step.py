"""One training step: lookup, forward with the losses, weighting, backward, update."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.tables import ItemTable
from unigrf_dist.model.unigrf import StepSums
from unigrf_dist.objective.enhancer.candidates import NO_ITEM, Candidates
from unigrf_dist.objective.enhancer.store import CandidateStore
from unigrf_dist.objective.exact_norms import ExactNorms
from unigrf_dist.objective.negatives import Negatives, NegativeSource
from unigrf_dist.objective.weighter import NUM_TASKS, Weighter
from unigrf_dist.phases import Phases
from unigrf_dist.train.matmul_precision import matmul_precision
from unigrf_dist.train.signals import Signals

_NO_SIGNALS = Signals()
_SEEDS_PER_STEP = 4096  # room for a dropout seed of each layer and rank


@dataclass(frozen=True)
class StepOutcome:
    """What a step leaves behind: values over all ranks, still on the device; ``[2]`` in the order of ``TASKS``.

    Attributes:
        loss: ``[]``, the weighted loss that was differentiated.
        losses: ``[2]``, mean loss of each task.
        weights: ``[2]``, weight of each task.
        grad_norms: ``[2]``, norms of the mean losses' gradients with respect to the hidden states.
        exact_norms: ``[2]``, the same with respect to the last block's parameters, in steps that measure them.
        enhancer_counts: ``[2]``, hard negatives and soft positives that the enhancer gave.
        num_events: ``[]``, events of the global batch.
        signals: ``[4]``, the ranks' signals, summed.
        local_sums: ``[2]``, this rank's part of the sums behind ``losses``.
        skipped: whether the update was left out, because a loss or gradient is not finite.
    """

    loss: Tensor
    losses: Tensor
    weights: Tensor
    grad_norms: Tensor
    exact_norms: Tensor | None
    enhancer_counts: Tensor
    num_events: Tensor
    signals: Tensor
    local_sums: Tensor
    skipped: bool = False

    def finite(self) -> Tensor:
        """``[]`` bool, whether losses and gradients are finite over all ranks."""
        return torch.isfinite(torch.cat([self.losses, self.grad_norms])).all()


class _Rows(NamedTuple):
    """Rows of a step: ``[E, D]`` items and what side features add to them, ``[K, D]`` negatives, candidates."""

    items: Tensor
    side: Tensor | None
    negatives: Tensor
    candidates: Candidates | None


class TrainStep:
    """The built parts of a step.

    DeepSpeed owns the dense parameters, TorchRec the table; neither sees the other's.

    Args:
        engine: DeepSpeed engine over ``UniGRF``.
        table: the item table.
        negatives: draws the step's negatives.
        weighter: balances the tasks.
        exact_norms: measures what the weighter estimates.
        candidates: the enhancer's candidates of this rank's users; None without an enhancer.
        table_rate_ratio: the table's learning rate as a multiple of the dense one, whose schedule it follows.
        matmul_precision: precision of fp32 products.
        seed: seed of the dropout masks.
        phases: names the parts of the step.
        skip_non_finite: leave out the update of a step whose losses or gradients are not finite, on all ranks
            alike; the step then waits for them before its backward pass.
    """

    def __init__(
        self,
        engine: Any,
        table: ItemTable,
        negatives: NegativeSource,
        weighter: Weighter,
        exact_norms: ExactNorms,
        candidates: CandidateStore | None,
        *,
        table_rate_ratio: float,
        matmul_precision: str,
        seed: int,
        phases: Phases,
        skip_non_finite: bool = False,
    ) -> None:
        self.engine, self.table, self.negatives, self.weighter = engine, table, negatives, weighter
        self.exact_norms, self.candidates = exact_norms, candidates
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.seed, self.phases = seed, phases
        self._table_rate_ratio, self._matmul_precision = table_rate_ratio, matmul_precision
        self._skip_non_finite = skip_non_finite

    def __call__(
        self, batch: JaggedBatch, step: int, *, epoch: int = 0, signals: Signals = _NO_SIGNALS
    ) -> StepOutcome:
        """Train on this rank's share of global step ``step`` (from 0); collective.

        Args:
            batch: this rank's share of the global batch, on the host.
            step: step of the run, from 0.
            epoch: epoch of the batch, from 0; the enhancer works in rounds of epochs.
            signals: what this rank tells the others.
        """
        with matmul_precision(self._matmul_precision):
            return self._step(batch, step, epoch, signals)

    def _step(self, batch: JaggedBatch, step: int, epoch: int, signals: Signals) -> StepOutcome:
        phase, host_users = self.phases, batch.user_ids
        batch = self._on_device(batch, step)
        self.table.begin_step(step, self.learning_rate * self._table_rate_ratio)
        # Counts follow from the batch alone: they are reduced while the forward runs, losses while the backward
        # runs.
        counts_reduction = _Reduction(self._local_counts(batch, signals))
        with phase("tables"):
            live_ids = None if self.table.live is None else self.table.live.ids
            negatives = self.negatives.draw(step, batch, live_ids)
            rows = self._lookup(batch, negatives, self._stored_candidates(host_users))
        with phase("forward"):
            inputs = (
                rows.items,
                batch,
                rows.side,
                negatives,
                rows.negatives,
                rows.candidates,
                self._dropout_seed(step),
            )
            sums: StepSums = self.engine(*inputs)
            task_sums = torch.stack([sums.retrieval, sums.ranking])  # [2]
        with phase("collectives"):
            counts, (events,), told = counts_reduction.result().split([NUM_TASKS, 1, len(signals)])
            counts, local_sums = counts.clamp(min=1.0), task_sums.detach()
            losses_reduction = _Reduction(torch.cat([local_sums, sums.sq_norms, sums.enhancer_counts]))
        with phase("weighter"):
            exact_norms = self.exact_norms.measure(step, lambda: self.engine.module(*inputs), counts)
            weights = self.weighter.weights
        skipped = self._skip_non_finite and not bool(torch.isfinite(losses_reduction.result()).all())
        if not skipped:
            with phase("backward"):
                # The global loss is a mean over the positions of all ranks, but dense and table gradients are
                # averaged over the ranks: hence the factor.
                local_share = (task_sums / counts * weights).sum()
                self.engine.backward(local_share * self.world_size)
        with phase("collectives"):
            totals, sq_norms, enhancer_counts = losses_reduction.result().split(NUM_TASKS)
            losses, grad_norms = totals / counts, sq_norms.sqrt() / counts
        outcome = StepOutcome(
            (losses * weights).sum(),
            losses,
            weights,
            grad_norms,
            exact_norms,
            enhancer_counts,
            events,
            told,
            local_sums,
            skipped,
        )
        if not skipped:
            self._update(outcome)
            if self.candidates is not None and self.candidates.renews(epoch):
                assert sums.next_candidates is not None
                self.candidates.write(host_users, sums.next_candidates)
        return outcome

    def _update(self, outcome: StepOutcome) -> None:
        """Weighter and dense parameters; the tables were updated in the backward pass."""
        with self.phases("weighter"):
            self.weighter.observe(outcome.losses, outcome.grad_norms)
        with self.phases("optimizer"):
            self.engine.step()

    @property
    def learning_rate(self) -> float:
        return float(self.engine.optimizer.param_groups[0]["lr"])

    def _stored_candidates(self, users: Tensor) -> Tensor | None:
        return None if self.candidates is None else self.candidates.read(users)

    def _on_device(self, batch: JaggedBatch, step: int) -> JaggedBatch:
        """The batch on the device; collective where ids are dynamic: its newcomers are given rows first."""
        live = self.table.live
        if live is None:
            return batch.to(self.table.device, non_blocking=True)
        with self.phases("ids"):
            live.observe(batch.item_ids, step)
            batch = batch.to(self.table.device, non_blocking=True)
            return replace(batch, known=live.known(batch.item_ids))

    def _lookup(self, batch: JaggedBatch, negatives: Negatives, candidate_ids: Tensor | None) -> _Rows:
        """Vectors of the batch's items, the negatives and the candidates, in one exchange; collective."""
        ids = [batch.item_ids, negatives.looked_up]
        if candidate_ids is not None:
            candidate_ids = candidate_ids.to(batch.device, non_blocking=True)
            if self.table.live is not None:
                # Some may have lost their rows since they were selected.
                present = (candidate_ids != NO_ITEM) & self.table.live.known(candidate_ids)
                candidate_ids = torch.where(present, candidate_ids, NO_ITEM)
            ids.append(candidate_ids.clamp_min(0).flatten())
        vectors, side, candidate_side = self.table.lookup(torch.cat(ids), batch, candidate_ids)
        items, drawn, *rest = vectors.split([part.numel() for part in ids])
        negative_vectors = drawn if negatives.in_batch is None else torch.cat([items[negatives.in_batch], drawn])
        candidates = None
        if candidate_ids is not None:
            candidates = Candidates(candidate_ids, rest[0].unflatten(0, candidate_ids.shape), candidate_side)
        return _Rows(items, side, negative_vectors, candidates)

    def _local_counts(self, batch: JaggedBatch, signals: Signals) -> Tensor:
        """``[7]``: positions of both tasks, events, this rank's signals."""
        local = torch.tensor([batch.num_events, *signals], dtype=torch.float32, device=batch.device)
        return torch.cat([self.engine.module.count_positions(batch), local])

    def _dropout_seed(self, step: int) -> int:
        """A function of (seed, step, rank) alone: a resumed run draws the masks of an uninterrupted one."""
        return ((self.seed * 1_000_003 + step) * self.world_size + self.rank) * _SEEDS_PER_STEP % (1 << 62)


class _Reduction:
    """A sum over all ranks under way."""

    def __init__(self, local: Tensor) -> None:
        self._total = local.contiguous()
        self._work = dist.all_reduce(self._total, async_op=True)

    def result(self) -> Tensor:
        if self._work is not None:
            self._work.wait()
            self._work = None
        return self._total
