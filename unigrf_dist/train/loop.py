"""The training loop: from the stream's batches over steps and validations to checkpoints."""

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
from unigrf_dist.ranks.announce import Announce, announce_nothing
from unigrf_dist.ranks.stop import StopRequest
from unigrf_dist.train.build import Parts
from unigrf_dist.train.checkpoints import Checkpoints, TrainState
from unigrf_dist.train.checks import refuse_unfit
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
        None if enhancer is None else CandidateStore(enhancer, stream.user_ids, first_row=stream.first_user),
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
        global_batch_users=config.train.global_batch_users,
        partitions=config.data.partitions,
        max_events=config.data.max_events,
        rank=runtime.rank,
        world_size=runtime.world_size,
        seed=config.train.seed,
        shuffle_users=config.data.shuffle_users,
        prefetch=config.data.prefetch_batches,
        prior_items=config.objective.enhancer is not None or config.objective.retrieval.mask_seen_negatives,
    )


class Trainer:
    """Trains to the configured number of epochs, or until asked to stop or patience is at its end.

    Args:
        parts: model and data.
        run: the run's folder.
        resume: continue from the latest checkpoint.
        announce: told what is resumed.

    Raises:
        UserError: the configuration does not fit the data or the ranks, or the checkpoint another model.
    """

    def __init__(self, parts: Parts, run: Path, *, resume: bool, announce: Announce = announce_nothing) -> None:
        self.parts, self.config, self.runtime = parts, parts.config, parts.runtime
        refuse_unfit(parts.config, parts.dataset, self.runtime.world_size)
        self.stream = build_stream(parts)
        self.step = build_step(parts, self.stream)
        self.selection = Selection(self.config)
        self.checkpoints = Checkpoints(
            run,
            parts.engine,
            parts.table,
            self.step.candidates,
            keep=self.config.train.keep_checkpoints,
            catalogue=parts.dataset.catalogue_fingerprint(),
            order=self.stream.order,
        )
        self.state = self._resumed(announce) if resume else TrainState()
        self.reporter = Reporter(
            run,
            total_steps=self.stream.steps_per_epoch * self.config.train.epochs,
            done_steps=self.state.step,
            selection=self.selection.metric,
            active=self.runtime.is_main,
        )
        self.stop = StopRequest()

    def run(self) -> bool:
        """Train; collective. Returns False when it was asked to stop before the end."""
        early = self._early_stop()
        self.reporter.header(epoch=self.state.epoch, **self._facts())
        try:
            while self.state.epoch < self.config.train.epochs and not early:
                if not self._epoch():
                    self._save()
                    self.reporter.stopped(self.state)
                    return False
                early = self._after_epoch()
            self.reporter.finished(self.state, early)
        finally:
            self.reporter.close()
        return True

    def _epoch(self) -> bool:
        """Train on what is left of the current epoch. False when a rank was asked to stop."""
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
            # One step late, so that the device's queue is not empty while the host waits for the value.
            if previous is not None and previous.stop_asked.item():
                return False
            previous = outcome
        return True

    def _train_on(self, batch: JaggedBatch) -> StepOutcome:
        outcome = self.step(batch, self.state.step, epoch=self.state.epoch, stop_asked=bool(self.stop))
        self.state.step += 1
        self.state.step_in_epoch += 1
        return outcome

    def _after_epoch(self) -> str:
        """Validate and save where due. Returns why training should end early; empty if it should not."""
        self.state.epoch, self.state.step_in_epoch = self.state.epoch + 1, 0
        plan, epoch = self.config.train, self.state.epoch
        last, best, early = epoch == plan.epochs, False, ""
        if last or epoch % plan.selection.every_epochs == 0:
            best = self._validate()
            early = self._early_stop()
        if last or best or early or epoch % plan.checkpoint_every_epochs == 0:
            self._save(best=best)
        self.reporter.restart_clock()
        return early

    def _early_stop(self) -> str:
        """Why training should end before its last epoch; empty if it should not."""
        if not self.selection.exhausted(self.state):
            return ""
        return f"no better {self.selection.metric} in {self.config.train.selection.patience} validation(s)"

    def _validate(self) -> bool:
        result = evaluate(
            self.parts.scorer,
            self.parts.dataset,
            split="validation",
            batch_users=self.config.evaluate.batch_users,
            max_events=self.config.data.max_events,
            rank=self.runtime.rank,
            world_size=self.runtime.world_size,
            targets=self.config.objective.retrieval.targets,
            bootstrap_samples=0,
        )
        best = self.selection.note(self.state, result.model)
        self.reporter.validation(self.state.step, self.state.epoch, result.metrics(), best=best)
        return best

    def _save(self, *, best: bool = False) -> None:
        self.state.weighter = self.step.weighter.state_dict()
        self.checkpoints.note_schedule(self.state)
        self.checkpoints.save(self.state, best=best)

    def _resumed(self, announce: Announce) -> TrainState:
        latest = self.checkpoints.to_resume()
        if latest is None:
            announce("resuming: stopped before its first checkpoint, so from step 0")
            return TrainState()
        state = self.checkpoints.load(latest)
        announce(f"resuming from checkpoint {latest} at step {state.step}")
        if aside := self.checkpoints.set_aside_after(latest):
            announce(f"rolled back: set aside the later {', '.join(aside)} (step-….rolled-back)")
        self.step.weighter.load_state_dict(state.weighter)
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
