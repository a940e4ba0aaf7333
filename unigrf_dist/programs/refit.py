"""``unigrf train --refit RUN``: the recipe and number of steps that validation chose, on more events."""

from __future__ import annotations

from pathlib import Path

from unigrf_dist.errors import UserError


def recipe_of(config: Path | None, refit: Path | None, *, final: bool) -> tuple[Path, list[str]]:
    """What to train: a YAML file and the ``key=value`` that a refit changes in it.

    Args:
        config: YAML file of a run of its own.
        refit: folder of the run to refit.
        final: train on the test events as well.

    Raises:
        UserError: not exactly one of both is given, or validation has chosen no checkpoint of the run.
    """
    if refit is None:
        if final:
            raise UserError("--final trains a chosen recipe on all events: name its run with --refit RUN")
        if config is None:
            raise UserError("say what to train: --config FILE, or --refit RUN for the recipe of an earlier run")
        return config, []
    if config is not None:
        raise UserError("--refit takes the recipe of its run: leave --config out, and change keys with --set")

    from unigrf_dist.train.checkpoints.folders import BEST, CheckpointFolders
    from unigrf_dist.train.checkpoints.index import state_of
    from unigrf_dist.train.run_folder import CONFIG_FILE, run_config

    trained_to = run_config(refit).data.train_to
    if trained_to != "training":
        raise UserError(
            f"{refit}: was trained on the {trained_to} events, so validation chose none of its steps; "
            "refit the run that it is a refit of"
        )
    best = CheckpointFolders(refit).resolve(BEST)
    steps = state_of(best).step
    return refit / CONFIG_FILE, [
        f"data.train_to={'test' if final else 'validation'}",
        f"train.stop_after_steps={steps}",
        f"train.refit_of={refit}/{best.name}",
        "train.selection.patience=null",
    ]
