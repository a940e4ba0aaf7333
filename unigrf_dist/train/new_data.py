"""``unigrf train --resume --new-data``: a run goes on with a day that was appended to its data.

It is evaluated on the day first and trained on it then, so that every event of a day is predicted before it is
learned (prequential evaluation; Dawid, 1984). Older events of the users are context: no loss is taken on them.
"""

from __future__ import annotations

from pathlib import Path

from unigrf_dist.config import Config
from unigrf_dist.config.cadence import Cadence
from unigrf_dist.data import Dataset
from unigrf_dist.data.days import as_of, only_day
from unigrf_dist.errors import UserError
from unigrf_dist.ranks.announce import Announce, announce_nothing
from unigrf_dist.ranks.progress import reached
from unigrf_dist.train.build import Parts
from unigrf_dist.train.checkpoints.index import stored_state
from unigrf_dist.train.checkpoints.state import TrainState
from unigrf_dist.train.clock import Clock
from unigrf_dist.train.engine import base_learning_rate
from unigrf_dist.train.loop import Trainer
from unigrf_dist.train.selection import Selection


def data_of_run(dataset: Dataset, run: Path) -> Dataset:
    """The data set as a run knows it: without days that were appended since it was trained.

    Args:
        dataset: the data set that the run names.
        run: folder of the run.

    Raises:
        UserError: the run is in the midst of a day, or knows more days than there are.
    """
    state = stored_state(run)
    if state is None:
        return dataset
    if state.day:
        raise UserError(
            f"{run}: stopped in the midst of day {state.day}; go on with it: --resume --new-data {dataset.path}"
        )
    return as_of(dataset, _known_days(state, dataset, run))


def next_day(config: Config, dataset: Dataset, run: Path) -> int:
    """The day that a run is to go on with: the one it stopped in, or the first that it does not know.

    Raises:
        UserError: there is none, the run has not finished its first training, or its configuration is not one
            for days.
    """
    _refuse_unfit_for_days(config)
    state = stored_state(run)
    if state is None:
        raise UserError(f"{run}: has no checkpoint yet; train it without --new-data first")
    end = config.train.stop_after_steps
    ended = state.epoch >= config.train.epochs or (end is not None and state.step >= end)
    if not ended and not Selection(config).exhausted(state):
        raise UserError(
            f"{run}: stopped in epoch {state.epoch + 1} of {config.train.epochs}; resume it without --new-data "
            "first, it goes on with the data that it knows"
        )
    known = _known_days(state, dataset, run)
    if not days_left(dataset, run):
        raise UserError(
            f"{run}: has been trained on all of {dataset.path}, {known} appended day(s) included; append what is "
            f"new: unigrf prepare … --append {dataset.path}"
        )
    return state.day or known + 1


def _refuse_unfit_for_days(config: Config) -> None:
    """Raise UserError where what a day brought is not what the configuration would train on."""
    if config.data.split.kind == "time":
        raise UserError(
            "--new-data: a day is trained on up to the last two events of each user, but data.split.kind is time, "
            "which ends training at one moment; train the run with data.split.kind: last"
        )
    if config.data.train_to != "training":
        raise UserError(
            f"--new-data: data.train_to is {config.data.train_to}, so the run knows events that a day would train "
            "on again; go on with the run that it is a refit of"
        )
    if config.data.chunks == "all":
        raise UserError(
            "--new-data: a day is trained on in each user's most recent window, but data.chunks is all; add --set "
            "data.chunks=recent --allow-change data.chunks"
        )


def days_left(dataset: Dataset, run: Path) -> int:
    """How many appended days a run has not been trained on."""
    state = stored_state(run)
    return len(dataset.manifest.days) - (state.known_days if state is not None else 0)


def _known_days(state: TrainState, dataset: Dataset, run: Path) -> int:
    there = len(dataset.manifest.days)
    if state.known_days > there:
        raise UserError(
            f"{run}: has been trained on {state.known_days} appended day(s), but {dataset.path} has {there}; name "
            "the data set that they were appended to"
        )
    return state.known_days


def without_schedule(config: Config) -> Config:
    """The configuration for a day: the schedule of the first training has come to its end."""
    section = {name: value for name, value in config.deepspeed.items() if name != "scheduler"}
    return config.model_copy(update={"deepspeed": section})


class DayTrainer(Trainer):
    """Evaluates a run on an appended day, then trains it on that day.

    The new checkpoint is the best one, too: values measured on different days do not compare, and a model that
    knows the day is what the next one needs.

    Args:
        parts: model, and the data set as of the day.
        run: the run's folder.
        day: the day, from 1.
        announce: told what is resumed.

    Raises:
        UserError: see ``Trainer``.
    """

    def __init__(self, parts: Parts, run: Path, day: int, *, announce: Announce = announce_nothing) -> None:
        self._day = day
        self._data = only_day(parts.dataset, day)
        super().__init__(parts, run, resume=True, announce=announce, dataset=self._data)
        # Nothing is chosen within a day.
        self._validate_every, self._validate_clock = Cadence(), Clock(0)
        rate = self.config.train.new_data.learning_rate_scale * base_learning_rate(self.config)
        for group in parts.engine.optimizer.param_groups:
            group["lr"] = rate

    def run(self) -> bool:
        """Evaluate and train; collective. Returns False when it was asked to stop before the end."""
        state = self.state
        self.reporter.header(epoch=state.epoch, validates=False, **self._facts())
        try:
            if not state.day:
                self._evaluate_day()
                state.day, state.step_in_epoch, state.best = self._day, 0, {}
            while state.day_epoch < self.config.train.new_data.epochs:
                if not self._epoch():
                    self._save_now()
                    self.reporter.stopped(state)
                    return False
                state.day_epoch, state.step_in_epoch = state.day_epoch + 1, 0
            state.known_days, state.day, state.day_epoch = self._day, 0, 0
            self._save_now(best=True)
            self.checkpoints.complete()
            self.reporter.finished_day(state)
        finally:
            self.reporter.close()
        return True

    def _evaluate_day(self) -> None:
        place = f"evaluation of day {self._day}"
        reached(place)
        with self._evaluated_weights():
            result = self._evaluated(self._data, "day", place)
        self.reporter.new_day(self._day, self.state.step, result.num_users, result.metrics())
        self.reporter.restart_clock()

    @property
    def _steps_done(self) -> bool:
        return False  # they are those of the first training

    @property
    def _pass(self) -> int:
        return self.state.day_epoch

    def _last_step(self) -> int:
        done = self.state.day_epoch * self.stream.steps_per_epoch + self.state.step_in_epoch
        return self.state.step - done + self.stream.steps_per_epoch * self.config.train.new_data.epochs

    def _facts(self) -> dict[str, object]:
        day = self.parts.dataset.manifest.days[-1]
        facts = {name: value for name, value in super()._facts().items() if name != "steps_per_epoch"}
        return {
            "day": self._day,
            "day_events": day.num_events,
            "day_users": day.num_known_users + day.num_users,
            "new_users": day.num_users,
            "new_items": day.num_items,
            **facts,
        }
