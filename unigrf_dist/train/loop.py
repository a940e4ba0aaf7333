"""The training loop: from the stream's batches over steps and validations to checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from unigrf_dist.config.cadence import parse_cadence
from unigrf_dist.data import Dataset, TrainStream
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.data.split import EvaluatedSplit
from unigrf_dist.data.vocabularies import Vocabularies
from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.evaluator import EvaluationResult, evaluate
from unigrf_dist.objective.enhancer.store import CandidateStore
from unigrf_dist.objective.exact_norms import ExactNorms
from unigrf_dist.objective.negatives import NegativeSource
from unigrf_dist.objective.tasks import RETRIEVAL, TASKS
from unigrf_dist.objective.weighter import build_weighter
from unigrf_dist.ranks.announce import Announce, announce_nothing
from unigrf_dist.ranks.progress import reached
from unigrf_dist.ranks.stop import StopRequest
from unigrf_dist.train.average import AveragedWeights
from unigrf_dist.train.build import Parts
from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
from unigrf_dist.train.checkpoints.state import TrainState
from unigrf_dist.train.checks import refuse_unfit
from unigrf_dist.train.clock import Clock
from unigrf_dist.train.engine import base_learning_rate
from unigrf_dist.train.non_finite import NonFiniteWatch
from unigrf_dist.train.seen_items import needs_prior_items
from unigrf_dist.train.selection import Selection
from unigrf_dist.train.signals import Signals
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
        skip_non_finite=config.train.on_non_finite == "skip",
    )


def build_stream(parts: Parts, dataset: Dataset | None = None) -> TrainStream:
    """This rank's training batches, of a part of the data set or of all of it."""
    config, runtime = parts.config, parts.runtime
    return TrainStream(
        dataset or parts.dataset,
        global_batch_users=config.train.global_batch_users,
        partitions=config.data.partitions,
        max_events=config.data.max_events,
        rank=runtime.rank,
        world_size=runtime.world_size,
        seed=config.train.seed,
        shuffle_users=config.data.shuffle_users,
        prefetch=config.data.prefetch_batches,
        readers=config.data.readers,
        prior_items=needs_prior_items(config),
        chunk_context=config.data.context_of_chunks,
        train_to=config.data.train_to,
    )


class Trainer:
    """Trains to the configured number of epochs, or until asked to stop or patience is at its end.

    Args:
        parts: model and data.
        run: the run's folder.
        resume: continue from the latest checkpoint.
        announce: told what is resumed.
        dataset: what is trained on; None for all that ``parts`` have.

    Raises:
        UserError: the configuration does not fit the data or the ranks, or the checkpoint another model.
    """

    def __init__(
        self,
        parts: Parts,
        run: Path,
        *,
        resume: bool,
        announce: Announce = announce_nothing,
        dataset: Dataset | None = None,
    ) -> None:
        self.parts, self.config, self.runtime = parts, parts.config, parts.runtime
        refuse_unfit(parts.config, parts.dataset, self.runtime.world_size)
        self.stream = build_stream(parts, dataset)
        self.step = build_step(parts, self.stream)
        self.selection = Selection(self.config)
        of_average = self.config.train.average
        self._average = None if of_average is None else AveragedWeights(of_average, parts.engine, parts.table)
        self.checkpoints = Checkpoints(
            run,
            parts.engine,
            parts.table,
            self.step.candidates,
            keep=self.config.train.keep_checkpoints,
            vocabularies=Vocabularies.of(parts.dataset),
            order=self.stream.order,
            average=self._average,
        )
        self.state = self._resumed(announce) if resume else self._begun()
        self.reporter = Reporter(
            run,
            total_steps=self._last_step(),
            done_steps=self.state.step,
            selection=self.selection.metric,
            active=self.runtime.is_main,
            tasks=TASKS if self.config.objective.ranking else TASKS[: RETRIEVAL + 1],
        )
        self._non_finite = NonFiniteWatch(run, parts, self.state, warn=self.reporter.warn)
        self.stop = StopRequest()
        self._save_every = parse_cadence(self.config.train.checkpoint_every)
        self._validate_every = parse_cadence(self.config.train.selection.every)
        self._save_clock, self._validate_clock = (
            Clock(self._save_every.minutes),
            Clock(self._validate_every.minutes),
        )
        self._early = ""
        # The step before the last one: what it told of saves and clocks; None where that is out of date.
        self._previous: StepOutcome | None = None

    def run(self) -> bool:
        """Train; collective. Returns False when it was asked to stop before the end."""
        self._early = self._early_stop()
        self.reporter.header(
            epoch=self.state.epoch, validates=self.config.data.train_to == "training", **self._facts()
        )
        try:
            while self.state.epoch < self.config.train.epochs and not self._early:
                if not self._epoch():
                    self._save_now()
                    self.reporter.stopped(self.state)
                    return False
                if not self._early:
                    self._after_epoch()
            self.checkpoints.complete()
            self.reporter.finished(self.state, self._early)
        finally:
            self.reporter.close()
        return True

    def _epoch(self) -> bool:
        """Train on what is left of the current epoch, or until an early stop. False when asked to stop."""
        events = torch.zeros((), device=self.runtime.device)
        self._previous = None
        for batch in self.stream.epoch(self._pass, start_step=self.state.step_in_epoch):
            outcome = self._train_on(batch)
            events += outcome.num_events
            if self.state.step % self.config.train.log_every_steps == 0:
                rate = self.step.learning_rate
                self.reporter.step(self.state.step, self.state.epoch, outcome, rate, events.item())
                events.zero_()
            if outcome.exact_norms is not None:
                self.reporter.exact_norms(self.state.step, self.state.epoch, outcome)
            # One step late, so that the device's queue is not empty while the host waits for the values.
            told: Signals | None = None if self._previous is None else Signals.of(self._previous.signals)
            self._previous = outcome
            if told is not None and told.stop:
                return False
            self._between_steps(told)
            if self._early:
                break
        return True

    def _train_on(self, batch: JaggedBatch) -> StepOutcome:
        reached(f"step {self.state.step}")
        signals = Signals(
            stop=bool(self.stop),
            save=self.runtime.is_main and self._save_clock.due,
            validate=self.runtime.is_main and self._validate_clock.due,
            unwritten=self.checkpoints.unwritten,
        )
        outcome = self.step(batch, self.state.step, epoch=self._pass, signals=signals)
        self._non_finite.note(self.state.step, batch, outcome)
        self.state.step += 1
        self.state.step_in_epoch += 1
        if self._average is not None:
            self._average.update(self.state.step)
        return outcome

    def _between_steps(self, told: Signals | None) -> None:
        """Complete, validate and save where due; the end of an epoch does so by itself."""
        if self.state.step_in_epoch == self.stream.steps_per_epoch:
            return
        if self.checkpoints.saving and told is not None and not told.unwritten:
            # Every rank had written by then.
            self._or_warn(self.checkpoints.complete)
        told = told or Signals()
        best = False
        if told.validate or self._validate_every.at(step=self.state.step) or self._steps_done:
            best = self._validate()
            self._early = self._early_stop()
        if self._early:
            self._save_now(best=best)
        elif best or told.save or self._save_every.at(step=self.state.step):
            self._save_aside(best=best)

    def _after_epoch(self) -> None:
        """Validate and save where due."""
        self.state.epoch, self.state.step_in_epoch = self.state.epoch + 1, 0
        step, epoch = self.state.step, self.state.epoch
        last, best = epoch == self.config.train.epochs or self._steps_done, False
        if last or self._validate_every.at(step=step, epoch=epoch):
            best = self._validate()
            self._early = self._early_stop()
        if last or self._early:
            self._save_now(best=best)
        elif best or self._save_every.at(step=step, epoch=epoch):
            self._save_aside(best=best)
        self.reporter.restart_clock()

    def _early_stop(self) -> str:
        """Why training should end before its last epoch; empty if it should not."""
        if self._steps_done and self.state.epoch < self.config.train.epochs:
            return f"train.stop_after_steps = {self.config.train.stop_after_steps}"
        if not self.selection.exhausted(self.state):
            return ""
        return f"no better {self.selection.metric} in {self.config.train.selection.patience} validation(s)"

    @property
    def _steps_done(self) -> bool:
        end = self.config.train.stop_after_steps
        return end is not None and self.state.step >= end

    def _validate(self) -> bool:
        """Whether this is the best model so far; without validation events that is the last one."""
        if self.config.data.train_to != "training":
            return self._steps_done or self.state.epoch == self.config.train.epochs
        self._non_finite.settle()
        place = f"validation after step {self.state.step}"
        reached(place)
        with self._evaluated_weights():
            result = self._evaluated(self.parts.dataset, "validation", place)
        best = self.selection.note(self.state, result.model)
        epochs = self.state.epoch + self.state.step_in_epoch / self.stream.steps_per_epoch
        self.reporter.validation(self.state.step, epochs, result.metrics(), best=best)
        self._validate_clock.restart()
        self._previous = None
        self.reporter.restart_clock()
        return best

    def _evaluated_weights(self) -> AbstractContextManager[None]:
        """Within it the model computes with what is evaluated: the average, where there is one."""
        return nullcontext() if self._average is None else self._average.in_use()

    def _evaluated(self, dataset: Dataset, split: EvaluatedSplit, place: str) -> EvaluationResult:
        return evaluate(
            self.parts.scorer,
            dataset,
            split=split,
            batch_users=self.config.evaluate.batch_users,
            max_events=self.config.data.max_events,
            rank=self.runtime.rank,
            world_size=self.runtime.world_size,
            targets=self.config.objective.retrieval.targets,
            seen=self.config.evaluate.seen or "exclude",
            users=self.config.evaluate.users,
            precision=self.config.evaluate.precision,
            bootstrap_samples=0,
            on_progress=lambda done, _total: reached(f"{place}, batch {done}"),
        )

    def _save_now(self, *, best: bool = False) -> None:
        """Save, and wait until it is on the disk."""
        self._non_finite.settle()
        reached(f"saving after step {self.state.step}")
        self._or_warn(self.checkpoints.complete)
        self.state.weighter = self.step.weighter.state_dict()
        self.checkpoints.save(self.state, best=best)

    def _save_aside(self, *, best: bool) -> None:
        """Save while training goes on; a save that fails is told, and the next one tries again."""
        self._non_finite.settle()
        reached(f"saving after step {self.state.step}")
        self.state.weighter = self.step.weighter.state_dict()
        self._or_warn(self.checkpoints.complete)
        self._or_warn(lambda: self.checkpoints.begin_save(self.state, best=best))
        self._save_clock.restart()
        self._previous = None
        self.reporter.restart_clock()

    def _or_warn(self, action: Callable[[], object]) -> None:
        """A failed save ends no run: the last checkpoint is intact, and the next save tries again."""
        try:
            action()
        except UserError as error:
            self.reporter.warn(str(error))

    def _resumed(self, announce: Announce) -> TrainState:
        latest = self.checkpoints.to_resume()
        if latest is None:
            announce("resuming: stopped before its first checkpoint, so from step 0")
            return self._begun()
        state = self.checkpoints.load(latest)
        announce(f"resuming from checkpoint {latest} at step {state.step}")
        if aside := self.checkpoints.set_aside_after(latest):
            announce(f"rolled back: set aside the later {', '.join(aside)} (step-….rolled-back)")
        self.step.weighter.load_state_dict(state.weighter)
        return state

    def _begun(self) -> TrainState:
        return TrainState(known_days=len(self.parts.dataset.manifest.days))

    @property
    def _pass(self) -> int:
        """Number of the pass over the stream that is under way, from 0."""
        return self.state.epoch

    def _last_step(self) -> int:
        """Steps of the run at its end."""
        return self.stream.steps_per_epoch * self.config.train.epochs

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
