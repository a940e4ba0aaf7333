"""``unigrf bench validation``: what share of an epoch's time a validation takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer


def bench_validation(
    config: Annotated[Path, typer.Option(help="YAML file of the run to measure.")],
    steps: Annotated[int, typer.Option(min=1, help="Training steps measured, after two of warm-up.")] = 10,
    users: Annotated[int, typer.Option(min=1, help="Users evaluated to measure the time of one.")] = 512,
    epoch_users: Annotated[
        int | None, typer.Option(min=1, help="Users of an epoch and of a whole validation; those of the data.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value.")
    ] = None,
) -> None:
    """Seconds of an epoch and of a validation, in both precisions, of all users and of samples; on one rank."""
    step, per_user, facts = _measure(config, overrides or [], steps, users)
    everyone = epoch_users or facts["users"]
    epoch = step * -(-everyone // facts["batch"])
    typer.echo(
        f"{facts['items']:,} items, {everyone:,} users, {facts['batch']} per step: {1e3 * step:,.0f} ms per step, "
        f"{epoch:,.0f} s per epoch"
    )
    for precision, seconds in per_user.items():
        for number in sorted({everyone, *(n for n in (50_000, 10_000, 2_000) if n < everyone)}, reverse=True):
            cost = seconds * number
            typer.echo(f"{precision:5}  {number:>9,} users: {cost:9,.1f} s, {cost / epoch:7.1%} of an epoch")


def _measure(
    file: Path, overrides: list[str], steps: int, users: int
) -> tuple[float, dict[str, float], dict[str, int]]:
    """Seconds of a training step, of a validated user by precision, and the sizes of the run."""
    from unigrf_dist.config import load_config
    from unigrf_dist.ranks.runtime import start
    from unigrf_dist.train.build import build_parts
    from unigrf_dist.train.loop import build_step, build_stream

    config = load_config(file, overrides)
    parts = build_parts(config, start(config.train.timeout_seconds))
    stream = build_stream(parts)
    train, seconds = build_step(parts, stream), []
    for number, batch in enumerate(_without_end(stream)):
        if number == steps + 2:
            break
        began = time.perf_counter()
        train(batch, number).loss.item()
        seconds.append(time.perf_counter() - began)
    facts = {
        "items": parts.dataset.num_items,
        "users": parts.dataset.num_users,
        "batch": config.train.global_batch_users,
    }
    return sum(seconds[2:]) / steps, {p: _of_a_user(parts, users, p) for p in ("exact", "fast")}, facts


def _without_end(stream: Any) -> Any:
    epoch = 0
    while True:
        yield from stream.epoch(epoch)
        epoch += 1


def _of_a_user(parts: Any, users: int, precision: Any) -> float:
    """Seconds of a validated user, without what an evaluation does once."""
    from unigrf_dist.data import EvaluationStream
    from unigrf_dist.evaluate.scorer import ModelScorer

    config = parts.config
    stream = EvaluationStream(
        parts.dataset,
        split="validation",
        batch_users=config.evaluate.batch_users,
        max_events=config.data.max_events,
        rank=0,
        world_size=1,
        seen=config.evaluate.seen,
        users=users,
    )
    scorer, done, began = ModelScorer(parts.scorer, precision), 0, 0.0
    batches = list(stream)
    # The first batches bring every row to length 1, and of the fast scores also compute the exact ones.
    warm = min(2, len(batches) - 1)
    for number, batch in enumerate(batches):
        if number == warm:
            began = time.perf_counter()
        scorer.score_users(batch)
        done += batch.batch.num_users if number >= warm else 0
    return (time.perf_counter() - began) / max(done, 1)
