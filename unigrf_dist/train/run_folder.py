"""The folder of a run: who may write into it, and what it says about itself."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist

from unigrf_dist.config import Config, load_config, save_config
from unigrf_dist.errors import UserError
from unigrf_dist.train.runtime import Runtime

CONFIG_FILE = "config.yaml"


def refuse_used_folder(run: Path) -> None:
    """A new run does not write over an old one.

    Raises:
        UserError: the folder holds a run already.
    """
    if (run / CONFIG_FILE).exists():
        raise UserError(f"{run}: holds a run already; go on with it (--resume) or name another folder (--run)")


def prepare_run(run: Path, config: Config, runtime: Runtime, *, resume: bool) -> None:
    """Make the folder and write the resolved configuration into it; collective."""
    if not resume:
        refuse_used_folder(run)
    elif not (run / CONFIG_FILE).exists():
        raise UserError(f"{run}: no run to resume; leave --resume away to start one")
    dist.barrier()
    if runtime.is_main:
        try:
            run.mkdir(parents=True, exist_ok=True)
            save_config(config, run / CONFIG_FILE)
        except OSError as error:
            raise UserError(f"{run}: can't write the run's folder: {error.strerror}") from error
    dist.barrier()


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
