"""Saving and loading the checkpoints of a run; both are collective.

A save copies what it needs to host memory and writes it in a thread, while training goes on; ``complete`` makes it
the latest one when every rank has written its part.

A checkpoint holds a file of blocks per rank that wrote it, ``state.json`` (what model it is of, where the run
stood), and ``index.json`` with the SHA-256 of all of them and its own.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist

from unigrf_dist.data.vocabularies import Vocabularies
from unigrf_dist.errors import UserError
from unigrf_dist.model.tables import ItemTable
from unigrf_dist.objective.enhancer.store import CandidateStore
from unigrf_dist.train.average import AveragedWeights
from unigrf_dist.train.checkpoints import contents
from unigrf_dist.train.checkpoints.blocks import (
    AVERAGE,
    Block,
    DamagedError,
    StoredFile,
    as_average,
    read_blocks,
    sha256,
    verify,
    write_blocks,
    write_json,
)
from unigrf_dist.train.checkpoints.folders import LATEST, CheckpointFolders
from unigrf_dist.train.checkpoints.index import FORMAT, INDEX_FILE, STATE_FILE, read_index, refuse_other_model
from unigrf_dist.train.checkpoints.staging import Staging
from unigrf_dist.train.checkpoints.state import TrainState
from unigrf_dist.train.dense_state import (
    dense_state_template,
    parameter_shape,
    read_dense_state,
    write_dense_state,
)

# Of a model without data.
_NAMELESS = Vocabularies(lambda _: "")


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run: the run's folder.
        engine: DeepSpeed engine.
        table: the tables.
        candidates: the enhancer's candidates of this rank's users; None without an enhancer.
        keep: latest checkpoints to keep; the best one stays besides.
        vocabularies: what the ids of the data stand for, of which tables and dense model hold the vectors.
        order: what decides the order of the users in the stream: candidates are stored in that order.
        average: the averaged weights; None in a run without, and where only weights are loaded.
    """

    def __init__(
        self,
        run: Path,
        engine: Any,
        table: ItemTable,
        candidates: CandidateStore | None = None,
        *,
        keep: int,
        vocabularies: Vocabularies = _NAMELESS,
        order: str = "",
        average: AveragedWeights | None = None,
    ) -> None:
        self.folders = CheckpointFolders(run)
        self.engine, self.table, self.keep = engine, table, keep
        self.candidates, self.vocabularies, self.order = candidates, vocabularies, order
        self.average = average
        self._staging = Staging()
        self._save: _Save | None = None
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")

    def save(self, state: TrainState, *, best: bool = False) -> Path:
        """Write the state after ``state.step`` updates and make it the latest (and best) one before returning.

        Raises:
            UserError: it could not be written; what was there before is untouched.
        """
        self.begin_save(state, best=best)
        self.complete()
        self.wait_for_pruning()
        return self.folders.folder / f"step-{state.step:08d}"

    def begin_save(self, state: TrainState, *, best: bool = False) -> None:
        """Copy the state after ``state.step`` updates and begin to write it, in a thread; ``complete`` ends it.

        An earlier save is completed first: there are never two at once.

        Raises:
            UserError: the earlier one, or the folder of this one, could not be written.
        """
        self.complete()
        self.note_schedule(state)
        place = self.folders.folder / f"step-{state.step:08d}"
        state_of_dense = read_dense_state(self.engine)
        if self.average is not None:
            for name, value in self.average.dense_weights().items():
                state_of_dense[name][AVERAGE] = value
        dense = contents.dense_blocks(state_of_dense, only_own=True)
        tables = contents.table_blocks(self.table) + contents.id_blocks(self.table, only_own=True)
        tables += contents.averaged_table_blocks(self.average)
        blocks = tables + contents.candidate_blocks(self.candidates) + dense
        staged = self._staging.copies(blocks)
        try:
            _on_main(lambda: self.folders.begin(state.step))
        except _FailedError as failure:
            raise _unsaved(place, failure) from failure
        partial = place.with_suffix(".partial")
        written = self._writer.submit(_write_rank, partial, staged)
        self._save = _Save(place, TrainState(**state.to_json()), best, written)

    @property
    def unwritten(self) -> bool:
        """Whether this rank is still writing its part of a save."""
        return self._save is not None and not self._save.written.done()

    @property
    def saving(self) -> bool:
        """Whether a save has begun that is not completed; the same on every rank."""
        return self._save is not None

    def complete(self) -> Path | None:
        """Wait for the save that has begun, if any, and make it the latest checkpoint; its folder.

        Raises:
            UserError: it could not be written; what was there before is untouched.
        """
        save, self._save = self._save, None
        if save is None:
            return None
        partial = save.place.with_suffix(".partial")
        try:
            stored = _all_gathered(save.written.result)
            _on_main(lambda: self._publish(partial, stored, save.state, save.best))
        except _FailedError as failure:
            # Without space even this may fail; the next save or resume tries again.
            with suppress(_FailedError):
                _on_main(self.folders.recover)
            raise _unsaved(save.place, failure) from failure
        return save.place

    def load(self, name: str, *, weights_only: bool = False, may_grow: bool = True) -> TrainState:
        """Load the checkpoint that ``name`` (``latest``, ``best`` or a folder's name) stands for.

        Of a run with averaged weights, ``weights_only`` loads these. Where the data has more items, feature values
        or behaviours than the checkpoint, what is new keeps the values of a new model, if it ``may_grow``.

        Raises:
            UserError: there is none, it is damaged, or it is of another model or data set.
        """
        place = self.folders.resolve(name)
        try:
            files, stored = read_index(place)
            own = contents.signature(self.engine, self.table, self.vocabularies)
            refuse_other_model(place, stored["model"], own, self.vocabularies, may_grow=may_grow)
            state = TrainState(**stored["train"])
            self._verify(place, files)
            with_candidates = not weights_only and stored["order"] == self.order
            averaged = any(name.endswith(f"/{AVERAGE}") for name in _names(files))
            own_average = None if weights_only or not averaged else self.average
            dense = self._read(
                place,
                files,
                stored["model"],
                with_candidates=with_candidates,
                average=own_average,
                use_average=weights_only,
            )
        except (DamagedError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{place}: the checkpoint is damaged: {error}; take another one") from error
        write_dense_state(self.engine, dense, step=state.step - state.skipped)
        if own_average is not None:
            own_average.load_dense({name: values[AVERAGE] for name, values in dense.items()})
        elif self.average is not None:
            self.average.restart()
        if not weights_only:
            self._restore_schedule(state)
        return state

    def to_resume(self) -> str | None:
        """Name of the checkpoint to go on from; None if the run ended before its first one.

        Raises:
            UserError: there are checkpoints, but none of them is named as the latest; or the folder can't be
                written.
        """
        self._tidy(self.folders.recover)
        self.folders.refuse_ambiguous()
        return self.folders.resolve(LATEST).name if self.folders.has(LATEST) else None

    def set_aside_after(self, name: str) -> list[str]:
        """Set aside what a run that was rolled back to ``name`` has left behind; what was, by name."""
        aside: list[Any] = [None]
        self._tidy(lambda: aside.__setitem__(0, self.folders.set_aside_after(name)))
        dist.broadcast_object_list(aside)
        return list(aside[0])

    def _tidy(self, action: Callable[[], Any]) -> None:
        try:
            _on_main(action)
        except _FailedError as failure:
            raise UserError(f"{self.folders.folder}: can't be written: {failure}; make it writable") from failure

    def wait_for_pruning(self) -> None:
        """Wait until checkpoints that are not kept are removed, which rank 0 does."""
        self._writer.submit(lambda: None).result()

    def resolve(self, name: str) -> Path:
        """The folder that ``latest``, ``best`` or a checkpoint's name stands for."""
        return self.folders.resolve(name)

    def note_schedule(self, state: TrainState) -> None:
        """Put the dense learning rate and its scheduler into ``state``, before it is saved."""
        scheduler = self.engine.lr_scheduler
        if scheduler is not None:  # appended days are trained without one, and leave it as it was
            state.scheduler = scheduler.state_dict()
        state.learning_rate = float(self.engine.optimizer.param_groups[0]["lr"])

    def _publish(self, partial: Path, stored: list[StoredFile], state: TrainState, best: bool) -> None:
        model = contents.signature(self.engine, self.table, self.vocabularies)
        write_json(partial / STATE_FILE, {"model": model, "train": state.to_json(), "order": self.order})
        index = {
            "format": FORMAT,
            "step": state.step,
            "state_sha256": sha256(partial / STATE_FILE),
            "files": [file.to_json() for file in stored],
        }
        write_json(partial / INDEX_FILE, index)
        self.folders.point(self.folders.publish(partial), best=best)
        # Removing gigabytes takes a while; what a failure leaves, the next save removes.
        self._writer.submit(self.folders.prune, self.keep)

    def _verify(self, place: Path, files: list[StoredFile]) -> None:
        """Hash every file once: each rank its share of them; all ranks learn of a difference."""
        rank, world_size = dist.get_rank(), dist.get_world_size()
        problem: list[str] = [""]
        try:
            verify(place, files[rank::world_size])
        except DamagedError as error:
            problem = [str(error)]
        problems: list[list[str]] = [[""]] * world_size
        dist.all_gather_object(problems, problem)
        if found := [text for (text,) in problems if text]:
            raise DamagedError(found[0])

    def _read(
        self,
        place: Path,
        files: list[StoredFile],
        model: dict[str, Any],
        *,
        with_candidates: bool,
        average: AveragedWeights | None,
        use_average: bool,
    ) -> dict[str, Any]:
        grown = any(shape != list(parameter_shape(p)) for shape, p in self._dense_shapes(model))
        dense = read_dense_state(self.engine) if grown else dense_state_template(self.engine)
        if average is not None:
            for parameter, value in average.dense_weights().items():
                dense[parameter][AVERAGE] = value
        targets = contents.table_blocks(self.table) + contents.id_blocks(self.table, only_own=False)
        targets += contents.averaged_table_blocks(average)
        targets = contents.stored_part(targets + contents.dense_blocks(dense, only_own=False), model)
        if use_average:
            targets = as_average(targets, _names(files))
        own = contents.candidate_blocks(self.candidates) if with_candidates else []
        # With another number of candidates per user, what was saved is of no use: the next round selects anew.
        stored = {(block.name, block.num_columns) for file in files for block in file.blocks}
        targets += [block for block in own if (block.name, block.num_columns) in stored]
        read_blocks(place, files, targets)
        if self.table.live is not None:
            self.table.live.reload()
        return dense

    def _dense_shapes(self, model: dict[str, Any]) -> list[tuple[list[int], Any]]:
        return [(model["dense"][name], parameter) for name, parameter in self.engine.module.named_parameters()]

    def _restore_schedule(self, state: TrainState) -> None:
        self.engine.global_steps = state.step
        if self.engine.lr_scheduler is not None and state.scheduler:
            self.engine.lr_scheduler.load_state_dict(state.scheduler)
        if state.learning_rate is not None:
            # The scheduler's state does not bring the rate back into the parameter groups.
            for group in self.engine.optimizer.param_groups:
                group["lr"] = state.learning_rate


def _names(files: list[StoredFile]) -> set[str]:
    return {block.name for file in files for block in file.blocks}


def read_checked(place: Path) -> TrainState:
    """Compare every file of a checkpoint with its hash, without any rank; the state of the run.

    Raises:
        UserError: it is damaged.
    """
    try:
        files, stored = read_index(place)
        verify(place, files)
        return TrainState(**stored["train"])
    except (DamagedError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{place}: the checkpoint is damaged: {error}; take another one") from error


class _Save(NamedTuple):
    """A save that has begun: where, of which state, whether it is the best, and this rank's part of it."""

    place: Path
    state: TrainState
    best: bool
    written: Future[StoredFile]


def _unsaved(place: Path, failure: _FailedError) -> UserError:
    return UserError(f"{place}: the checkpoint could not be saved: {failure}; earlier checkpoints are untouched")


def _write_rank(folder: Path, blocks: list[Block]) -> StoredFile:
    return write_blocks(folder, f"rank-{dist.get_rank():05d}.safetensors", blocks)


class _FailedError(Exception):
    """A rank failed at its part of a save; carries the reason to all ranks."""


def _on_main(action: Callable[[], Any]) -> None:
    """Let rank 0 act while the others wait; all raise if it fails."""
    reason: list[str | None] = [None]
    if dist.get_rank() == 0:
        try:
            action()
        except (OSError, DamagedError) as error:
            reason = [_reason(error)]
    dist.broadcast_object_list(reason)
    if reason[0] is not None:
        raise _FailedError(reason[0])


def _all_gathered(action: Callable[[], StoredFile]) -> list[StoredFile]:
    """What ``action`` returns on every rank; all raise if it fails on one."""
    outcome: StoredFile | str
    try:
        outcome = action()
    except (OSError, DamagedError) as error:
        outcome = _reason(error)
    outcomes: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(outcomes, outcome)
    if failed := [text for text in outcomes if isinstance(text, str)]:
        raise _FailedError(failed[0])
    return outcomes


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
