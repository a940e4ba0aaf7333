"""A run goes on with appended days: it is evaluated on a day, trained on it, and can be stopped in it."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.prepare.test_append import COLUMNS, SMALL, rows_of_days, write_days
from tests.spawn import run_ranks
from tests.train.small_run import small_config
from tests.train.stored import latest, stored_values
from unigrf_dist.data import open_dataset
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.append import append
from unigrf_dist.prepare.pipeline import prepare
from unigrf_dist.programs.train import launch_training
from unigrf_dist.train.checkpoints.index import stored_state
from unigrf_dist.train.new_data import data_of_run, next_day


def config_of(folder: Path) -> Any:
    """Two passes over 60 users; a schedule that ends with them, at a rate of 0."""
    schedule = {"type": "WarmupDecayLR", "params": {"warmup_num_steps": 1, "total_num_steps": "auto"}}
    config = small_config(
        data__path=str(folder / "set"),
        objective__ranking=[{"rule": "stars >= 4"}],
        train__epochs=2,
        train__log_every_steps=1,
        train__selection={"every": "2 epochs"},
        train__average={"decay": 0.9},
        train__new_data={"epochs": 2, "learning_rate_scale": 0.5},
        deepspeed__scheduler=schedule,
    )
    return config.model_copy(update={"train": config.train.model_copy(update={"global_batch_users": 12})})


def go_on(folder: Path, run: str, *, new_data: bool, stop: bool = False, resume: bool = True) -> dict[str, Any]:
    """What a rank of ``unigrf train`` does; whether it came to its end, and what it saw."""
    from unigrf_dist.programs.train import _trainer
    from unigrf_dist.ranks.runtime import start

    (folder / run).mkdir(exist_ok=True)
    arguments = Namespace(run=folder / run, resume=resume, new_data=new_data)
    training = _trainer(arguments, config_of(folder), start(60))
    training.stop = stop  # asked for with the first step
    items = training.parts.dataset.num_items
    return {"ended": training.run(), "items": items, "rate": training.step.learning_rate}


def all_of_it(folder: Path, raws: list[Path]) -> dict[str, Any]:
    """First training; then day 1 in one go, and stopped, with a day more before it goes on."""
    found = {"first": go_on(folder, "straight", new_data=False, resume=False)}
    append("csv", raw=raws[1], into=folder / "set")
    found["again"] = go_on(folder, "straight", new_data=False)
    shutil.copytree(folder / "straight", folder / "stopped")
    found["straight"] = go_on(folder, "straight", new_data=True)
    found["stopped"] = go_on(folder, "stopped", new_data=True, stop=True)
    append("csv", raw=raws[2], into=folder / "set")
    found["in_day"] = stored_state(folder / "stopped")
    try:
        data_of_run(open_dataset(folder / "set"), folder / "stopped")
    except UserError as error:
        found["plain"] = str(error)
    found["resumed"] = go_on(folder, "stopped", new_data=True)
    return found


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("daily")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    raws = write_days(folder / "raw", rows_of_days(new_users=True))
    prepare("csv", raw=raws[0], out=folder / "set", columns=COLUMNS, **SMALL)
    (result,) = run_ranks(1, all_of_it, folder, raws)
    return result


def test_a_run_knows_no_day_that_it_was_not_given(found: dict[str, Any]) -> None:
    assert found["first"]["items"] == found["again"]["items"] == 100
    assert found["straight"]["items"] == found["resumed"]["items"] == 110


def test_a_day_is_predicted_before_it_is_trained_on(folder: Path, found: dict[str, Any]) -> None:
    log = records(folder / "straight")
    begun = max(place for place, record in enumerate(log) if record["kind"] == "header")
    kinds = [record["kind"] for record in log[begun:]]
    assert kinds == ["header", "day", *["step"] * (len(kinds) - 3), "finished"]
    day = log[begun + 1]
    assert (day["day"], day["step"]) == (1, 10)
    assert 0 <= day["retrieval"]["ndcg@10"] <= 1
    assert "auc" in day["ranking"]["stars >= 4"]
    assert (log[begun]["day"], log[begun]["new_items"]) == (1, 10)
    # Half of the rate that the optimizer names, where the schedule had come to its end.
    assert {record["lr"] for record in log[begun:] if record["kind"] == "step"} == {0.005}
    state = stored_state(folder / "straight")
    assert state is not None
    assert (state.known_days, state.day, state.day_epoch, state.epoch) == (1, 0, 0, 2)
    checkpoints = folder / "straight" / "checkpoints"
    assert (checkpoints / "best").read_text() == (checkpoints / "latest").read_text()


def test_a_day_that_was_stopped_goes_on_to_the_same_model(folder: Path, found: dict[str, Any]) -> None:
    assert (found["stopped"]["ended"], found["resumed"]["ended"]) == (False, True)
    assert found["in_day"].day == 1
    assert "stopped in the midst of day 1; go on with it" in found["plain"]
    assert found["in_day"].step == 12
    assert [record["kind"] for record in records(folder / "stopped")].count("day") == 1
    straight, stopped = (stored_values(latest(folder / run)) for run in ("straight", "stopped"))
    assert set(straight) == set(stopped)
    for name, values in straight.items():
        assert torch.equal(values, stopped[name]), name


def test_what_cannot_go_on_is_refused_in_one_line(folder: Path, found: dict[str, Any], tmp_path: Path) -> None:
    dataset, config = open_dataset(folder / "set"), config_of(folder)
    assert next_day(config, dataset, folder / "straight") == 2
    with pytest.raises(UserError, match="has no checkpoint yet"):
        next_day(config, dataset, tmp_path)
    longer = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 3})})
    with pytest.raises(UserError, match="stopped in epoch 3 of 3"):
        next_day(longer, dataset, folder / "straight")
    for key, value, told in (
        ("split", config.data.split.model_copy(update={"kind": "time"}), "data.split.kind is time"),
        ("train_to", "validation", "data.train_to is validation"),
        ("chunks", "all", "data.chunks is all; add --set data.chunks=recent --allow-change data.chunks"),
    ):
        other = config.model_copy(update={"data": config.data.model_copy(update={key: value})})
        with pytest.raises(UserError, match=told):
            next_day(other, dataset, folder / "straight")
    prepare("csv", raw=folder / "raw" / "day-0.csv", out=tmp_path / "base", columns=COLUMNS, **SMALL)
    with pytest.raises(UserError, match="has been trained on 1 appended day"):
        next_day(config, open_dataset(tmp_path / "base"), folder / "straight")
    with pytest.raises(UserError, match="give --resume as well"):
        launch_training(tmp_path / "any.yaml", tmp_path / "run", new_data=tmp_path / "base")
