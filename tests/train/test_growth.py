"""A checkpoint loads into a larger catalogue: old rows stay bit-equal, new rows are those of a new table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.spawn import run_ranks
from tests.train import small_run
from tests.train.small_run import LABELS, NUM_ITEMS, small_config, small_step
from tests.train.stored import latest, stored_values
from tests.train.test_checkpoint import train_and_save
from unigrf_dist.errors import UserError

GROWN = NUM_ITEMS + 30
MORE_LABELS = [*LABELS, [1.0], [0.0]]


def load_and_save(run: Path, out: Path, config: Any) -> str:
    """Load the checkpoint of ``run`` into a model of more items and behaviours, and save that one."""
    from unigrf_dist.data.vocabularies import Vocabularies
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
    from unigrf_dist.train.checkpoints.state import TrainState

    small_run.NUM_ITEMS = GROWN
    step = small_step(config, labels=MORE_LABELS)
    fresh = Checkpoints(out / "fresh", step.engine, step.table, keep=1)
    fresh.save(TrainState())
    # The first items alone are fingerprinted as they were.
    names = Vocabularies(lambda first: "" if first == NUM_ITEMS else "grown")
    Checkpoints(run, step.engine, step.table, keep=1, vocabularies=names).load("latest")
    Checkpoints(out / "grown", step.engine, step.table, keep=1).save(TrainState(step=3))
    try:
        Checkpoints(run, step.engine, step.table, keep=1, vocabularies=Vocabularies(lambda _: "other")).load(
            "latest"
        )
    except UserError as error:
        return str(error)
    return ""


def test_old_rows_and_moments_stay_and_new_rows_are_those_of_a_new_table(tmp_path: Path) -> None:
    config = small_config(3)
    run_ranks(2, train_and_save, tmp_path / "run", config, 3, 3)
    (told,) = run_ranks(1, load_and_save, tmp_path / "run", tmp_path, config)
    assert "its items are not those of data.path" in told
    before, fresh, grown = (stored_values(latest(tmp_path / name)) for name in ("run", "fresh", "grown"))
    assert set(before) == set(grown)
    growing = {name for name in before if name.startswith("table/item/") or "behaviours.weight" in name}
    assert len(growing) == 6
    for name, old in before.items():
        values, new = grown[name], fresh[name]
        if name not in growing:
            assert torch.equal(values, old), name
        elif name.startswith("table/"):
            assert values.shape[0] == GROWN
            assert torch.equal(values[:NUM_ITEMS], old), name
            assert torch.equal(values[NUM_ITEMS:], new[NUM_ITEMS:]), name
        else:
            kept = old.shape[1]
            assert values.shape[1] == kept + 2 * config.model.width
            assert torch.equal(values[:, :kept], old), name
            assert torch.equal(values[:, kept:], new[:, kept:]), name
    assert fresh["table/item/weight"][NUM_ITEMS:].abs().min() > 0
