"""``unigrf evaluate --blend``: lambda of each ranking task, chosen on validation and stored with the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unigrf_dist.errors import UserError


def choose(run: Path, *, checkpoint: str, overrides: Sequence[str]) -> None:
    """Choose, print the curves, and write ``blend.json``; in this process, on the CPU.

    Args:
        run: the run's folder.
        checkpoint: ``best``, ``latest`` or a checkpoint's name.
        overrides: ``key=value`` of the configuration.

    Raises:
        UserError: there is no such run, checkpoint or data set, the run was trained on validation events, or the
            file can't be written.
    """
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from unigrf_dist.serve.blend import choose_blend
    from unigrf_dist.serve.blend_file import write_blend
    from unigrf_dist.serve.recommender import Recommender
    from unigrf_dist.train.run_folder import run_config

    trained_to = run_config(run).data.train_to
    if trained_to != "training":
        raise UserError(
            f"{run}: trained on the validation events (data.train_to: {trained_to}), on which lambda is chosen; "
            "choose it for the run that it is a refit of"
        )
    recommender = Recommender(run, checkpoint=checkpoint, overrides=overrides)
    console = Console()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("blend, on validation")
        choice = choose_blend(
            recommender, on_progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    for rule, points in choice.curves.items():
        table = Table(title=f"lambda of {rule}: {choice.blend[rule]:g}")
        for heading in ("lambda", "NDCG@10", "NDCG@10, liked"):
            table.add_column(heading, justify="right")
        for point in points:
            liked = "" if point.liked is None else f"{point.liked:.4f}"
            table.add_row(f"{point.value:g}", f"{point.ndcg:.4f}", liked)
        console.print(table)
    console.print(f"written to {write_blend(run, choice.to_dict())}")
