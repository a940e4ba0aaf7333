"""The folder of a run: its files, when a new run may use it, and the configuration that it keeps."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist

from unigrf_dist.config import Config, load_config, save_config
from unigrf_dist.errors import UserError
from unigrf_dist.ranks.runtime import Runtime

CONFIG_FILE = "config.yaml"
LOG_FILE = "log.jsonl"


def refuse_used_folder(run: Path) -> None:
    """A new run does not overwrite an earlier one; what ended before its first checkpoint does not count as one.

    Raises:
        UserError: the folder holds a run already.
    """
    if (run / "checkpoints" / "latest").exists():
        raise UserError(f"{run}: holds a run already; go on with it (--resume) or name another folder (--run)")


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
    dist.barrier()


def keep_config(run: Path, config: Config, runtime: Runtime) -> None:
    """Write the resolved configuration, whole or not at all; call it once the run has been accepted.

    Raises:
        UserError: the folder can't be written.
    """
    if not runtime.is_main:
        return
    partial = run / f"{CONFIG_FILE}.partial"
    try:
        save_config(config, partial)
        partial.replace(run / CONFIG_FILE)
    except OSError as error:
        raise UserError(f"{run}: can't write the run's folder: {error.strerror}") from error


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
