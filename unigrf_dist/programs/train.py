"""``unigrf train``, and one rank of it: ``deepspeed --module unigrf_dist.train --config FILE --run DIR``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unigrf_dist.errors import UserError
from unigrf_dist.ranks.worker import run_worker

if TYPE_CHECKING:
    from unigrf_dist.config import Config
    from unigrf_dist.ranks.runtime import Runtime
    from unigrf_dist.train.loop import Trainer

_STOPPED = 130  # what a shell reports of a program ended by Ctrl-C
_TIMEOUT_WITHOUT_CONFIG = 60


def launch_training(
    config_file: Path,
    run: Path,
    *,
    ranks: int = 1,
    overrides: Sequence[str] = (),
    resume: bool = False,
    allow_change: Sequence[str] = (),
    max_restarts: int = 0,
    elastic: bool = False,
    new_data: Path | None = None,
) -> int:
    """Check what can be checked without ranks, then train on ``ranks`` ranks of this machine.

    Args:
        config_file: YAML file of the run.
        run: the run's folder.
        ranks: processes on this machine.
        overrides: ``key=value`` of the configuration.
        resume: continue from the latest checkpoint.
        allow_change: keys in which a resumed run may differ from its own configuration.
        max_restarts: how often to go on from the latest checkpoint after ranks were lost.
        elastic: go on with the ranks that are left.
        new_data: the run's data set with days appended; the run goes on with each of them in turn.

    Returns:
        Exit status of the ranks.

    Raises:
        UserError: before any rank starts.
    """
    from unigrf_dist.config import load_config

    if new_data is not None:
        if not resume:
            raise UserError("--new-data is for a run that goes on: give --resume as well")
        overrides = [*overrides, f"data.path={json.dumps(str(new_data))}"]
    config = load_config(config_file, overrides)  # before the imports below, which take seconds

    from unigrf_dist.data import configured_dataset
    from unigrf_dist.ranks.launch import launch, launch_again, repeated
    from unigrf_dist.train.checks import refuse_unfit
    from unigrf_dist.train.new_data import data_of_run, days_left, next_day
    from unigrf_dist.train.run_folder import CONFIG_FILE, refuse_changed_config, refuse_used_folder

    dataset = configured_dataset(config.data)
    refuse_unfit(config, dataset, ranks)
    if not resume:
        refuse_used_folder(run)
    else:
        refuse_changed_config(run, config, allow_change)
        if new_data is None:
            data_of_run(dataset, run)
        else:
            next_day(config, dataset, run)

    def arguments(again: bool) -> list[str]:
        # What was lost before it had written anything is started anew.
        goes_on = resume or (again and (run / CONFIG_FILE).exists())
        words = ["--config", str(config_file), "--run", str(run), *repeated("--set", overrides)]
        words += ["--new-data"] * (new_data is not None)
        return words + repeated("--allow-change", allow_change) + ["--resume"] * goes_on

    def launched() -> int:
        if not max_restarts:
            return launch("unigrf_dist.train", arguments(False), ranks=ranks)
        return launch_again(
            "unigrf_dist.train",
            arguments,
            ranks=ranks,
            max_restarts=max_restarts,
            elastic=elastic,
            announce=lambda text: print(text, file=sys.stderr, flush=True),
        )

    status = launched()
    # Each day has ranks of its own: the tables grow with it.
    while new_data is not None and status == 0 and days_left(dataset, run):
        status = launched()
    return status


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
    parser.add_argument(
        "--new-data", action="store_true", help="with --resume: go on with the next day appended to data.path"
    )
    parser.add_argument("--local_rank", type=int, help="given by the deepspeed launcher; LOCAL_RANK counts")
    arguments = parser.parse_args()
    run_worker(lambda: _train(arguments))


def _train(arguments: argparse.Namespace) -> int:
    from unigrf_dist.config import load_config
    from unigrf_dist.ranks.announce import announce_once
    from unigrf_dist.ranks.runtime import start
    from unigrf_dist.train.agreement import facts_of, prove_shared, refuse_differing
    from unigrf_dist.train.run_folder import keep_config, open_run, refuse_changed_config

    config: Config | None = None
    facts: dict[str, str] | UserError
    try:
        config = load_config(arguments.config, arguments.set)
        facts = facts_of(config)
    except UserError as error:
        # Told after the ranks have met, or the others would wait for this one.
        facts = error
    timeout = config.train.timeout_seconds if config else _TIMEOUT_WITHOUT_CONFIG
    runtime = start(timeout, announce_once, stacks=arguments.run / "stacks")
    refuse_differing(facts)
    assert config is not None, "a rank without one has been refused"
    open_run(arguments.run, runtime, resume=arguments.resume)
    prove_shared(arguments.run, runtime)
    if arguments.resume:
        refuse_changed_config(arguments.run, config, arguments.allow_change)

    trainer = _trainer(arguments, config, runtime)
    keep_config(arguments.run, config, runtime, step=trainer.state.step)
    return 0 if trainer.run() else _STOPPED


def _trainer(arguments: argparse.Namespace, config: Config, runtime: Runtime) -> Trainer:
    from unigrf_dist.data import configured_dataset
    from unigrf_dist.data.days import as_of
    from unigrf_dist.ranks.announce import announce_once
    from unigrf_dist.train.build import build_parts
    from unigrf_dist.train.loop import Trainer
    from unigrf_dist.train.new_data import DayTrainer, data_of_run, next_day, without_schedule

    run, dataset = arguments.run, configured_dataset(config.data)
    if arguments.new_data:
        day = next_day(config, dataset, run)
        config = without_schedule(config)
        parts = build_parts(config, runtime, dataset=as_of(dataset, day), announce=announce_once)
        return DayTrainer(parts, run, day, announce=announce_once)
    if arguments.resume:
        dataset = data_of_run(dataset, run)
    parts = build_parts(config, runtime, dataset=dataset, announce=announce_once)
    return Trainer(parts, run, resume=arguments.resume, announce=announce_once)


if __name__ == "__main__":
    main()
