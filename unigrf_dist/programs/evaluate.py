"""``unigrf evaluate``, and one rank of it: ``deepspeed --module unigrf_dist.programs.evaluate --run DIR``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unigrf_dist.errors import UserError
from unigrf_dist.ranks.worker import run_worker

_SPLITS = ("test", "validation")


def launch_evaluation(
    run: Path,
    *,
    split: str = "test",
    day: int | None = None,
    checkpoint: str = "best",
    ranks: int = 1,
    overrides: Sequence[str] = (),
) -> int:
    """Evaluate a run on ``ranks`` ranks of this machine.

    Args:
        run: the run's folder.
        split: ``test`` or ``validation``.
        day: evaluate the events of this appended day instead, with the data set as it was then.
        checkpoint: ``best``, ``latest`` or a checkpoint's name.
        ranks: processes on this machine.
        overrides: ``key=value`` of the configuration.

    Returns:
        Exit status of the ranks.

    Raises:
        UserError: before any rank starts: there is no such split or day, or no run in the folder.
    """
    if split not in _SPLITS:
        raise UserError(f"--split {split}: allowed are {' and '.join(_SPLITS)}")

    from unigrf_dist.config import load_config
    from unigrf_dist.data import configured_dataset
    from unigrf_dist.data.days import only_day
    from unigrf_dist.ranks.launch import launch, repeated
    from unigrf_dist.train.run_folder import CONFIG_FILE, refuse_trained_on, run_config

    if day is None:
        refuse_trained_on(run, split)
    run_config(run)
    arguments = ["--run", str(run), "--split", split, "--checkpoint", checkpoint, *repeated("--set", overrides)]
    if day is not None:
        dataset = configured_dataset(load_config(run / CONFIG_FILE, overrides).data)
        only_day(dataset, day)
        arguments += ["--day", str(day)]
    return launch("unigrf_dist.programs.evaluate", arguments, ranks=ranks)


def main() -> None:
    """One rank."""
    parser = argparse.ArgumentParser(prog="unigrf_dist.programs.evaluate", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--split", choices=_SPLITS, default="test")
    parser.add_argument("--day", type=int, help="evaluate the events of this appended day instead")
    parser.add_argument("--checkpoint", default="best", help="best, latest or a checkpoint's name")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value")
    parser.add_argument("--local_rank", type=int, help="given by the deepspeed launcher; LOCAL_RANK counts")
    arguments = parser.parse_args()
    run_worker(lambda: _evaluate(arguments))


def _evaluate(arguments: argparse.Namespace) -> int:
    from unigrf_dist.config import load_config
    from unigrf_dist.ranks.announce import announce_once
    from unigrf_dist.ranks.progress import reached
    from unigrf_dist.ranks.runtime import start
    from unigrf_dist.train.run_folder import CONFIG_FILE, refuse_trained_on, run_config

    if arguments.day is None:
        refuse_trained_on(arguments.run, arguments.split)
    run_config(arguments.run)  # its error names the run, not a file that is missing
    config = load_config(arguments.run / CONFIG_FILE, arguments.set)
    runtime = start(config.train.timeout_seconds, announce_once, stacks=arguments.run / "stacks")

    from rich.console import Console
    from rich.progress import Progress

    from unigrf_dist.data import configured_dataset
    from unigrf_dist.data.days import as_of, only_day
    from unigrf_dist.data.vocabularies import Vocabularies
    from unigrf_dist.evaluate.evaluator import evaluate
    from unigrf_dist.evaluate.metrics_file import write_metrics
    from unigrf_dist.evaluate.model_words import of_model
    from unigrf_dist.evaluate.table import opponents_table, result_table
    from unigrf_dist.train.build import build_parts
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints

    day, dataset = arguments.day, configured_dataset(config.data)
    parts = build_parts(config, runtime, dataset=dataset if day is None else as_of(dataset, day))
    checkpoints = Checkpoints(
        arguments.run,
        parts.engine,
        parts.table,
        keep=config.train.keep_checkpoints,
        vocabularies=Vocabularies.of(parts.dataset),
    )
    # Only a day may bring items that the model has never met.
    state = checkpoints.load(arguments.checkpoint, weights_only=True, may_grow=day is not None)
    name = checkpoints.resolve(arguments.checkpoint).name
    console = Console(quiet=not runtime.is_main)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{arguments.split if day is None else f'day {day}'} of {name}")

        def on_progress(done: int, total: int) -> None:
            reached(f"batch {done} of {total}")
            progress.update(task, completed=done, total=total)

        result = evaluate(
            parts.scorer,
            parts.dataset if day is None else only_day(parts.dataset, day),
            split=arguments.split if day is None else "day",
            batch_users=config.evaluate.batch_users,
            max_events=config.data.max_events,
            rank=runtime.rank,
            world_size=runtime.world_size,
            targets=config.objective.retrieval.targets,
            seen=parts.config.evaluate.seen or "exclude",
            users=config.evaluate.users,
            precision=config.evaluate.precision,
            bootstrap_samples=config.evaluate.bootstrap_samples,
            comparisons=day is None,
            on_progress=on_progress,
        )
    named = result.split if day is None else f"day {day}"
    result = replace(result, split=named, protocol={**result.protocol, **of_model(config)})
    if runtime.is_main:
        file = write_metrics(arguments.run, result, checkpoint=name, step=state.step, data=parts.dataset.path)
        console.print(result_table(result))
        opponents = opponents_table(result)
        if opponents is not None:
            console.print(opponents)
        console.print(f"written to {file}")
    return 0


if __name__ == "__main__":
    main()
