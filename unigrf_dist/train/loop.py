"""The training loop: a batch's way from the stream to the checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from unigrf_dist.data import TrainStream
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.evaluate.evaluator import evaluate
from unigrf_dist.objective.enhancer.store import CandidateStore
from unigrf_dist.objective.exact_norms import ExactNorms
from unigrf_dist.objective.negatives import NegativeSource
from unigrf_dist.objective.weighter import build_weighter
from unigrf_dist.ranks.stop import StopRequest
from unigrf_dist.train.build import Parts
from unigrf_dist.train.checkpoint import Checkpoints, TrainState
from unigrf_dist.train.checks import refuse_unmeasurable, users_per_rank
from unigrf_dist.train.engine import base_learning_rate
from unigrf_dist.train.selection import Selection
from unigrf_dist.train.step import StepOutcome, TrainStep
from unigrf_dist.train.telemetry import Reporter


def build_step(parts: Parts, stream: TrainStream) -> TrainStep:
    """The training step over ``parts``, for the users of ``stream``."""
    config, device, enhancer = parts.config, parts.runtime.device, parts.config.objective.enhancer
    return TrainStep(
        parts.engine,
        parts.table,
        NegativeSource(
            config.objective.retrieval,
            popularity=parts.dataset.training_counts(),
            seed=config.train.seed,
            device=device,
        ),
        build_weighter(config.objective.weighter, device),
        ExactNorms(parts.engine.module.last_shared_parameters(), config.objective.weighter.exact_every_steps),
        None if enhancer is None else CandidateStore(enhancer, stream.user_ids),
        table_rate_ratio=config.tables.learning_rate / base_learning_rate(config),
        matmul_precision=config.train.matmul_precision,
        seed=config.train.seed,
        phases=parts.phases,
    )


def build_stream(parts: Parts) -> TrainStream:
    """This rank's training batches."""
    config, runtime = parts.config, parts.runtime
    return TrainStream(
        parts.dataset,
        batch_users=users_per_rank(config, runtime.world_size),
        max_events=config.data.max_events,
        rank=runtime.rank,
        world_size=runtime.world_size,
        seed=config.train.seed,
        shuffle_users=config.data.shuffle_users,
        prefetch=config.data.prefetch_batches,
        prior_items=config.objective.enhancer is not None or config.objective.retrieval.mask_seen_negatives,
    )


class Trainer:
    """Trains to the configured number of epochs, or until asked to stop or nothing is gained any more.

    Args:
        parts: model and data.
        run: the run's folder.
        resume: continue from the latest checkpoint.
    """

    def __init__(self, parts: Parts, run: Path, *, resume: bool) -> None:
        self.parts, self.config, self.runtime = parts, parts.config, parts.runtime
        refuse_unmeasurable(parts.config, parts.dataset)
        self.stream = build_stream(parts)
        self.step = build_step(parts, self.stream)
        self.selection = Selection(self.config.train.selection)
        self.checkpoints = Checkpoints(
            run,
            parts.engine,
            parts.table,
            self.step.candidates,
            keep=self.config.train.keep_checkpoints,
            catalogue=parts.dataset.catalogue_fingerprint(),
        )
        self.state = self._resumed() if resume else TrainState(world_size=self.runtime.world_size)
        total = self.stream.steps_per_epoch * self.config.train.epochs
        self.reporter = Reporter(run, total_steps=total, done_steps=self.state.step, speaks=self.runtime.is_main)
        self.stop = StopRequest()

    def run(self) -> bool:
        """Train; collective. Returns False when it was asked to stop before the end."""
        self.reporter.header(**self._facts())
        try:
            while self.state.epoch < self.config.train.epochs:
                if not self._epoch():
                    self._save()
                    self.reporter.note(f"asked to stop: saved after step {self.state.step}; go on with --resume")
                    return False
                if self._after_epoch():
                    break
        finally:
            self.reporter.close()
        return True

    def _epoch(self) -> bool:
        """The rest of the current epoch. False when a rank was asked to stop."""
        events = torch.zeros((), device=self.runtime.device)
        previous: StepOutcome | None = None
        for batch in self.stream.epoch(self.state.epoch, start_step=self.state.step_in_epoch):
            outcome = self._train_on(batch)
            events += outcome.num_events
            if self.state.step % self.config.train.log_every_steps == 0:
                rate = self.step.learning_rate
                self.reporter.step(self.state.step, self.state.epoch, outcome, rate, events.item())
                events.zero_()
            if outcome.exact_norms is not None:
                self.reporter.exact_norms(self.state.step, self.state.epoch, outcome)
            # One step late, so that the device's queue never runs dry for the look at it.
            if previous is not None and previous.stop_asked.item():
                return False
            previous = outcome
        return True

    def _train_on(self, batch: JaggedBatch) -> StepOutcome:
        outcome = self.step(batch, self.state.step, epoch=self.state.epoch, stop_asked=bool(self.stop))
        self.state.step += 1
        self.state.step_in_epoch += 1
        return outcome

    def _after_epoch(self) -> bool:
        """Validate and save where due. True when training should end early."""
        self.state.epoch, self.state.step_in_epoch = self.state.epoch + 1, 0
        plan, epoch = self.config.train, self.state.epoch
        last, best, enough = epoch == plan.epochs, False, False
        if last or epoch % plan.selection.every_epochs == 0:
            best = self._validate()
            enough = self.selection.exhausted(self.state)
            if enough:
                self.reporter.note(f"no better {plan.selection.metric} for {plan.selection.patience} validations")
        if last or best or enough or epoch % plan.checkpoint_every_epochs == 0:
            self._save(best=best)
        self.reporter.restart_clock()
        return enough

    def _validate(self) -> bool:
        result = evaluate(
            self.parts.scorer,
            self.parts.dataset,
            split="validation",
            batch_users=self.config.evaluate.batch_users,
            max_events=self.config.data.max_events,
            rank=self.runtime.rank,
            world_size=self.runtime.world_size,
            bootstrap_samples=0,
        )
        metrics = result.metrics()
        best = self.selection.note(self.state, metrics)
        self.reporter.validation(self.state.step, self.state.epoch, metrics, best=best)
        return best

    def _save(self, *, best: bool = False) -> None:
        self.state.weighter = self.step.weighter.state_dict()
        self.state.world_size = self.runtime.world_size
        self.checkpoints.note_schedule(self.state)
        self.checkpoints.save(self.state, best=best)

    def _resumed(self) -> TrainState:
        if not self.checkpoints.has("latest"):
            # Stopped before its first checkpoint.
            return TrainState(world_size=self.runtime.world_size)
        state = self.checkpoints.load("latest")
        self.step.weighter.load_state_dict(state.weighter)
        # With other ranks an epoch has other batches: go on at the same share of it.
        state.step_in_epoch = state.step_in_epoch * state.world_size // self.runtime.world_size
        return state

    def _facts(self) -> dict[str, object]:
        manifest = self.parts.dataset.manifest
        dense = sum(getattr(p, "ds_numel", p.numel()) for p in self.parts.engine.module.parameters())
        return {
            "users": manifest.num_users,
            "items": manifest.num_items,
            "events": manifest.num_events,
            "ranks": self.runtime.world_size,
            "device": str(self.runtime.device),
            "zero_stage": self.parts.engine.zero_optimization_stage(),
            "dense_parameters": dense,
            "steps_per_epoch": self.stream.steps_per_epoch,
            "resumed_at_step": self.state.step,
        }
