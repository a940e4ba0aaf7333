"""The folder of a run: its files, when a new run may use it, and the configuration that it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import torch.distributed as dist

from unigrf_dist.config import Config, load_config, save_config
from unigrf_dist.errors import UserError
from unigrf_dist.ranks.runtime import Runtime
from unigrf_dist.train.checkpoints.folders import CheckpointFolders
from unigrf_dist.train.config_history import note_config, refuse_changed
from unigrf_dist.train.ownership import own_run

CONFIG_FILE = "config.yaml"
LOG_FILE = "log.jsonl"
# Held until this process ends.
_OWNED: list[IO[str]] = []


def refuse_used_folder(run: Path) -> None:
    """A new run does not overwrite an earlier one; what ended before its first checkpoint does not count as one.

    Raises:
        UserError: the folder holds a run already.
    """
    CheckpointFolders(run).refuse_used()


def open_run(run: Path, runtime: Runtime, *, resume: bool) -> None:
    """Make the folder, or check that there is a run to resume; collective.

    Raises:
        UserError: the folder holds a run already, there is none to resume, or it can't be made.
    """
    if not resume:
        refuse_used_folder(run)
    elif not (run / CONFIG_FILE).exists():
        raise UserError(f"{run}: no run to resume; leave --resume away to start one")
    dist.barrier()
    if runtime.is_main:
        try:
            run.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{run}: can't write the run's folder: {error.strerror}") from error
        _OWNED.append(own_run(run))
    dist.barrier()


def keep_config(run: Path, config: Config, runtime: Runtime, *, step: int) -> None:
    """Write the resolved configuration, whole or not at all, and note it; call it once the run has been accepted.

    Args:
        run: the run's folder.
        config: configuration that the run goes on with.
        runtime: this rank.
        step: step from which on it holds.

    Raises:
        UserError: the folder can't be written.
    """
    if not runtime.is_main:
        return
    partial = run / f"{CONFIG_FILE}.partial"
    try:
        before = run_config(run) if (run / CONFIG_FILE).exists() else None
        note_config(run, before, config, step=step, ranks=runtime.world_size)
        save_config(config, partial)
        partial.replace(run / CONFIG_FILE)
    except OSError as error:
        raise UserError(f"{run}: can't write the run's folder: {error.strerror}") from error


def refuse_changed_config(run: Path, config: Config, allowed: Sequence[str]) -> None:
    """Raise UserError where ``config`` differs from the run's own in a key that is not allowed to."""
    if (run / CONFIG_FILE).exists():
        refuse_changed(run, run_config(run), config, allowed)


def run_config(run: Path) -> Config:
    """The configuration of an existing run.

    Raises:
        UserError: there is no run in the folder.
    """
    if not (run / CONFIG_FILE).exists():
        raise UserError(
            f"{run}: no run here ({CONFIG_FILE} is missing); give the folder that `unigrf train` wrote"
        )
    return load_config(run / CONFIG_FILE)


def refuse_trained_on(run: Path, split: str) -> None:
    """Raise UserError where the run was trained on the events of ``split``, or is no run."""
    trained_to = run_config(run).data.train_to
    if trained_to == "test" or trained_to == split:
        hint = "; --split test is left" if trained_to == "validation" else ": it is for deployment"
        raise UserError(f"{run}: trained on the {split} events (data.train_to: {trained_to}){hint}")
