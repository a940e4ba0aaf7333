"""Lists into a file, by this process or by one of several ranks, which ``unigrf recommend --ranks`` starts."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from unigrf_dist.ranks.worker import run_worker

if TYPE_CHECKING:
    from unigrf_dist.ranks.collective import Collective
    from unigrf_dist.serve.asked import Asked
    from unigrf_dist.serve.recommender import Recommender
    from unigrf_dist.serve.stages import ListOptions

_PATHS = ("run", "users", "histories", "out")
_TIMEOUT_SECONDS = 600
_DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Order:
    """What ``unigrf recommend`` was asked for; one of ``user``, ``users`` and ``histories``, or else all users.

    Attributes:
        run: folder of the run.
        user: raw ids.
        users: file of raw ids.
        histories: file of json lines.
        out: Parquet file; None for the terminal.
        k, candidates, seen, blend: as in `Recommender.recommend`.
        at: moment of the requests in seconds.
        explain: also write the scores of both stages.
        checkpoint: ``best``, ``latest`` or a checkpoint's name.
        batch_users: users that a rank computes together.
        overrides: ``key=value`` of the configuration.
    """

    run: Path
    user: list[str] | None
    users: Path | None
    histories: Path | None
    out: Path | None
    k: int
    candidates: int
    seen: Literal["exclude", "keep"]
    blend: dict[str, float] | None
    at: int | None
    explain: bool
    checkpoint: str
    batch_users: int
    overrides: list[str] | None

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @staticmethod
    def from_json(text: str) -> Order:
        values: dict[str, Any] = json.loads(text)
        paths = {name: Path(values[name]) for name in _PATHS if values[name] is not None}
        return Order(**{**values, **paths})


def options_of(order: Order, recommender: Recommender) -> ListOptions:
    """What kind of lists.

    Raises:
        UserError: as `Recommender.options`.
    """
    return recommender.options(k=order.k, candidates=order.candidates, seen=order.seen, blend=order.blend)


def asked_for(order: Order, recommender: Recommender) -> Asked:
    """Who is asked for.

    Raises:
        UserError: an id or a line of a file is none.
    """
    from unigrf_dist.serve.asked import AskedHistories, AskedUsers, users_in_file

    if order.histories is not None:
        return AskedHistories(recommender, order.histories, order.at)
    named = users_in_file(order.users) if order.users is not None else order.user
    return AskedUsers(recommender, named or None, order.at)


def launch_lists(order: Order, ranks: int) -> int:
    """Write the lists with ``ranks`` ranks of this machine and return their exit status.

    Raises:
        UserError: before any rank starts: there is no run in the folder.
    """
    from unigrf_dist.ranks.launch import launch
    from unigrf_dist.serve.bulk import partial_file
    from unigrf_dist.train.run_folder import run_config

    assert order.out is not None, "ranks write a file"
    run_config(order.run)
    seen = os.environ.get(_DEVICES)
    os.environ[_DEVICES] = ""  # else the launcher wants a GPU for each rank, which computes on the CPU
    try:
        return launch("unigrf_dist.programs.recommend_rank", ["--order", order.to_json()], ranks=ranks)
    finally:
        os.environ.pop(_DEVICES)
        if seen is not None:
            os.environ[_DEVICES] = seen
        # The launcher ends the rank that writes when another one has failed.
        partial_file(order.out).unlink(missing_ok=True)


def write_file(order: Order, ranks: Collective | None = None) -> None:
    """Write the lists.

    Args:
        order: what was asked for.
        ranks: those that share users and catalogue, all of which call this; None for this process alone.

    Raises:
        UserError: an option contradicts the run, or the file can't be written.
    """
    from rich.console import Console
    from rich.progress import Progress

    from unigrf_dist.ranks.collective import Collective
    from unigrf_dist.ranks.progress import reached
    from unigrf_dist.serve.bulk import write_lists
    from unigrf_dist.serve.recommender import Recommender

    assert order.out is not None
    overrides = order.overrides or []
    recommender = Recommender(order.run, checkpoint=order.checkpoint, overrides=overrides, ranks=ranks)
    options, asked = options_of(order, recommender), asked_for(order, recommender)
    main = ranks is None or ranks.rank == 0
    console = Console(quiet=not main)
    began = perf_counter()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("users")

        def progress(done: int, total: int) -> None:
            reached(f"user {done} of {total}")
            bar.update(task, completed=done, total=total)

        write_lists(
            recommender,
            asked,
            options,
            order.out,
            explain=order.explain,
            batch_users=order.batch_users,
            progress=progress,
            ranks=ranks or Collective(),
        )
    speed = len(asked) / (perf_counter() - began)
    console.print(f"lists of {len(asked):,} users, {speed:,.0f} users/s: {order.out}")
    if main:
        for line in asked.problems():
            sys.stderr.write(f"{line}\n")


def main() -> None:
    """One rank: ``deepspeed --module unigrf_dist.programs.recommend_rank --order JSON``."""
    parser = argparse.ArgumentParser(prog="unigrf_dist.programs.recommend_rank", description=__doc__)
    parser.add_argument("--order", required=True, help="what `unigrf recommend` was asked for, as json")
    parser.add_argument("--local_rank", type=int, help="given by the deepspeed launcher; LOCAL_RANK counts")
    arguments = parser.parse_args()
    run_worker(lambda: _rank(Order.from_json(arguments.order)))


def _rank(order: Order) -> int:
    from unigrf_dist.ranks.announce import announce_once
    from unigrf_dist.ranks.collective import Collective
    from unigrf_dist.ranks.runtime import start

    os.environ[_DEVICES] = ""  # the launcher has set it
    start(_TIMEOUT_SECONDS, announce_once)
    write_file(order, Collective())
    return 0


if __name__ == "__main__":
    main()
