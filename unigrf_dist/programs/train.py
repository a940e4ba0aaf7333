"""``unigrf train``, and one rank of it: ``deepspeed --module unigrf_dist.train --config FILE --run DIR``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from unigrf_dist.ranks.worker import run_worker

_STOPPED = 130  # what a shell reports of a program ended by Ctrl-C


def launch_training(
    config_file: Path,
    run: Path,
    *,
    ranks: int = 1,
    overrides: Sequence[str] = (),
    resume: bool = False,
    allow_change: Sequence[str] = (),
) -> int:
    """Check what can be checked without ranks, then train on ``ranks`` ranks of this machine.

    Args:
        config_file: YAML file of the run.
        run: the run's folder.
        ranks: processes on this machine.
        overrides: ``key=value`` of the configuration.
        resume: continue from the latest checkpoint.
        allow_change: keys in which a resumed run may differ from its own configuration.

    Returns:
        Exit status of the ranks.

    Raises:
        UserError: before any rank starts.
    """
    from unigrf_dist.config import load_config

    config = load_config(config_file, overrides)  # before the imports below, which take seconds

    from unigrf_dist.data import open_dataset
    from unigrf_dist.ranks.launch import launch, repeated
    from unigrf_dist.train.checks import refuse_unfit
    from unigrf_dist.train.run_folder import refuse_changed_config, refuse_used_folder

    refuse_unfit(config, open_dataset(config.data.path), ranks)
    if resume:
        refuse_changed_config(run, config, allow_change)
    else:
        refuse_used_folder(run)
    arguments = ["--config", str(config_file), "--run", str(run), *repeated("--set", overrides)]
    arguments += repeated("--allow-change", allow_change)
    return launch("unigrf_dist.train", arguments + ["--resume"] * resume, ranks=ranks)


def main() -> None:
    """One rank."""
    parser = argparse.ArgumentParser(prog="unigrf_dist.train", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML file of the run")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run; made if it does not exist")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value")
    parser.add_argument("--resume", action="store_true", help="continue from the run's latest checkpoint")
    parser.add_argument(
        "--allow-change", action="append", default=[], metavar="KEY", help="a resumed run may differ in this key"
    )
    parser.add_argument("--local_rank", type=int, help="given by the deepspeed launcher; LOCAL_RANK counts")
    arguments = parser.parse_args()
    run_worker(lambda: _train(arguments))


def _train(arguments: argparse.Namespace) -> int:
    from unigrf_dist.config import load_config
    from unigrf_dist.ranks.announce import announce_once
    from unigrf_dist.ranks.runtime import start
    from unigrf_dist.train.run_folder import keep_config, open_run, refuse_changed_config

    config = load_config(arguments.config, arguments.set)
    runtime = start(config.train.timeout_seconds, announce_once)
    open_run(arguments.run, runtime, resume=arguments.resume)
    if arguments.resume:
        refuse_changed_config(arguments.run, config, arguments.allow_change)

    from unigrf_dist.train.build import build_parts
    from unigrf_dist.train.loop import Trainer

    parts = build_parts(config, runtime, announce=announce_once)
    trainer = Trainer(parts, arguments.run, resume=arguments.resume, announce=announce_once)
    keep_config(arguments.run, config, runtime, step=trainer.state.step)
    return 0 if trainer.run() else _STOPPED


if __name__ == "__main__":
    main()
