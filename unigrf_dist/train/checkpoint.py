"""Checkpoints, each a folder that is complete or absent.

``RUN/checkpoints/step-00000123/`` holds one distributed checkpoint (table shards, fused optimizer state, dense
weights and moments) and ``state.json`` (step, data position, weighter, scheduler, what model it is of). It is
written under another name and then renamed; ``latest`` and ``best`` name one folder each.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from unigrf_dist.errors import UserError
from unigrf_dist.model.tables import ItemTable
from unigrf_dist.objective.enhancer.store import CandidateStore
from unigrf_dist.train.dense_state import (
    dense_state_template,
    parameter_shape,
    read_dense_state,
    write_dense_state,
)

# Checkpoints of earlier versions keep the candidates under the second name.
_CANDIDATE_KEYS = ("candidates.", "proposals.")


@dataclass
class TrainState:
    """State of a run besides weights and optimizer moments.

    Attributes:
        step: updates done.
        epoch: epoch that the next batch belongs to, from 0.
        step_in_epoch: batches of that epoch already trained on.
        world_size: ranks that counted them.
        best: the best validation so far: metric, value, step and epoch; empty before the first one.
        validations_without_gain: validations since the best one.
        weighter: state of the weighter.
        scheduler: state of DeepSpeed's learning-rate scheduler; empty without one.
        learning_rate: rate of the next dense update.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    world_size: int = 1
    best: dict[str, Any] = field(default_factory=dict)
    validations_without_gain: int = 0
    weighter: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    learning_rate: float | None = None


class Checkpoints:
    """The checkpoints of one run. Saving and loading are collective.

    Args:
        run: the run's folder.
        engine: DeepSpeed engine.
        table: item table.
        candidates: the enhancer's candidates of this rank's users; None without an enhancer.
        keep: latest checkpoints to keep; the best one stays besides.
        catalogue: fingerprint of the data's items, which the rows of the table are the vectors of.
    """

    def __init__(
        self,
        run: Path,
        engine: Any,
        table: ItemTable,
        candidates: CandidateStore | None = None,
        *,
        keep: int,
        catalogue: str = "",
    ) -> None:
        self.folder, self.engine, self.table, self.keep = run / "checkpoints", engine, table, keep
        self.candidates, self.catalogue = candidates, catalogue

    def save(self, state: TrainState, *, best: bool = False) -> Path:
        """Write the state after ``state.step`` updates and make it the latest (and best) one.

        Raises:
            UserError: it could not be written; what was there before is untouched.
        """
        place = self.folder / f"step-{state.step:08d}"
        partial = place.with_suffix(".partial")
        error = ""
        if not place.exists():
            try:
                _on_main(lambda: _fresh_folder(partial))
                tensors = self._tensors(read_dense_state(self.engine))
                if self.candidates is not None:
                    tensors["candidates"] = {f"{dist.get_rank():05d}": self.candidates.state()}
                dcp.save(tensors, checkpoint_id=partial)
                _on_main(lambda: _publish(partial, place, {"model": self._signature(), "train": asdict(state)}))
            except (CheckpointException, OSError, _MainRankError) as failure:
                error = _reason(failure)
        if error:
            _on_main(lambda: shutil.rmtree(partial, ignore_errors=True))
            raise UserError(
                f"{place}: the checkpoint could not be saved: {error}; earlier checkpoints are untouched"
            )
        _on_main(lambda: self._point(place, best))
        return place

    def load(self, name: str, *, weights_only: bool = False) -> TrainState:
        """Load the checkpoint that ``name`` (``latest``, ``best`` or a folder's name) stands for.

        Raises:
            UserError: there is none, it is damaged, or it is of another model or data set.
        """
        place = self.resolve(name)
        try:
            stored = json.loads((place / "state.json").read_text(encoding="utf-8"))
            model, train = stored["model"], TrainState(**stored["train"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{place / 'state.json'}: can't be read ({type(error).__name__}: {error}); take another checkpoint"
            ) from error
        self._refuse_other_model(place, model)
        tensors = self._tensors(dense_state_template(self.engine))
        try:
            dcp.load(tensors, checkpoint_id=place)
        except (CheckpointException, OSError) as error:
            raise UserError(f"{place}: the checkpoint is damaged: {_reason(error)}; take another one") from error
        state = train
        self.table.load_state(tensors["table"])
        write_dense_state(self.engine, tensors["dense"], step=state.step)
        if not weights_only:
            self._restore_schedule(state)
            self._restore_candidates(place)
        return state

    def resolve(self, name: str) -> Path:
        """The folder that a pointer or a name stands for."""
        pointer = self.folder / name
        if pointer.is_file():
            name = pointer.read_text(encoding="utf-8").strip()
        place = self.folder / name
        if not name or not place.is_dir():
            there = sorted(p.name for p in self.folder.glob("step-*") if p.is_dir()) or ["none"]
            raise UserError(f"{place}: no such checkpoint; there are: {', '.join(there)}")
        return place

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def note_schedule(self, state: TrainState) -> None:
        """Put the dense learning rate and its scheduler into ``state``, before it is saved."""
        scheduler = self.engine.lr_scheduler
        state.scheduler = scheduler.state_dict() if scheduler is not None else {}
        state.learning_rate = float(self.engine.optimizer.param_groups[0]["lr"])

    def _restore_schedule(self, state: TrainState) -> None:
        self.engine.global_steps = state.step
        if self.engine.lr_scheduler is not None and state.scheduler:
            self.engine.lr_scheduler.load_state_dict(state.scheduler)
        if state.learning_rate is not None:
            # The scheduler's state does not bring the rate back into the parameter groups.
            for group in self.engine.optimizer.param_groups:
                group["lr"] = state.learning_rate

    def _restore_candidates(self, place: Path) -> None:
        """Read the parts of all ranks that saved, and keep what is this rank's."""
        if self.candidates is None:
            return
        parts: dict[tuple[str, str], dict[str, torch.Tensor]] = defaultdict(dict)
        for key, saved in dcp.FileSystemReader(place).read_metadata().state_dict_metadata.items():
            if key.startswith(_CANDIDATE_KEYS) and isinstance(saved, TensorStorageMetadata):
                section, rank, name = key.split(".")
                parts[section, rank][name] = torch.empty(saved.size, dtype=saved.properties.dtype)
        for (section, rank), part in parts.items():
            dcp.load({section: {rank: part}}, checkpoint_id=place)
            self.candidates.load(part)

    def _tensors(self, dense: dict[str, Any]) -> dict[str, Any]:
        return {"table": self.table.state(), "dense": dense}

    def _signature(self) -> dict[str, Any]:
        shapes = {name: list(parameter_shape(p)) for name, p in self.engine.module.named_parameters()}
        items = [self.table.num_items, self.table.width]
        return {
            "items": items,
            "catalogue": self.catalogue,
            "features": self.table.features.cardinalities,
            "dense": shapes,
        }

    def _refuse_other_model(self, place: Path, stored: dict[str, Any]) -> None:
        own = self._signature()
        if stored["items"] != own["items"]:
            raise UserError(
                f"{place}: checkpoint of another model: its item table is {stored['items']}, "
                f"the configuration and data give {own['items']}"
            )
        if stored.get("catalogue", own["catalogue"]) != own["catalogue"]:
            raise UserError(
                f"{place}: checkpoint of other data: its items are not those of data.path; "
                "name the data set it was trained on (--set data.path=…)"
            )
        # Checkpoints written before there were side features do not mention them.
        for part in ("features", "dense"):
            theirs, ours = stored.get(part, {}), own[part]
            for name in sorted(set(theirs) | set(ours)):
                if theirs.get(name) != ours.get(name):
                    raise UserError(
                        f"{place}: checkpoint of another model: {name} is {theirs.get(name) or 'absent'} there, "
                        f"{ours.get(name) or 'absent'} here; use the configuration it was trained with"
                    )

    def _point(self, place: Path, best: bool) -> None:
        for pointer in ("latest", "best") if best else ("latest",):
            target = self.folder / pointer
            partial = target.with_suffix(".partial")
            partial.write_text(place.name + "\n", encoding="utf-8")
            partial.replace(target)
        named = {(self.folder / p).read_text(encoding="utf-8").strip() for p in ("latest", "best") if self.has(p)}
        whole = sorted(p for p in self.folder.glob("step-*") if p.is_dir() and p.suffix != ".partial")
        for old in whole[: -self.keep]:
            if old.name not in named:
                shutil.rmtree(old)


class _MainRankError(Exception):
    """Rank 0 failed at work that it does for all ranks; carries its reason to the others."""


def _on_main(action: Any) -> None:
    """Let rank 0 act while the others wait; all raise if it fails."""
    reason: list[str | None] = [None]
    if dist.get_rank() == 0:
        try:
            action()
        except OSError as error:
            reason = [_reason(error)]
    dist.broadcast_object_list(reason)
    if reason[0] is not None:
        raise _MainRankError(reason[0])


def _fresh_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _publish(partial: Path, place: Path, state: dict[str, Any]) -> None:
    (partial / "state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    partial.rename(place)


def _reason(error: BaseException) -> str:
    if isinstance(error, CheckpointException):
        # One wrapped error per failed rank; the first says what happened.
        failures = list(error.failures.values())
        if failures:
            error = failures[0][0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
