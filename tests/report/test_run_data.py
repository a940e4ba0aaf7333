"""What is read of a run's folder: lines that still count, lines cut off, files that are not what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.small_data import drawn_users, write_users
from tests.report.fake_run import HEADER, validation_record, write_config, write_log
from unigrf_dist.errors import UserError
from unigrf_dist.report.charts import Chart
from unigrf_dist.report.run_data import read_run
from unigrf_dist.report.sections import validation_section


def step(number: int, loss: float = 1.0) -> dict[str, Any]:
    return {"kind": "step", "step": number, "loss": loss, "seconds": 2.0}


def run_with(folder: Path, lines: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    write_config(folder, folder / "no-data")
    write_log(folder, lines)
    return folder


def test_steps_that_a_resumed_run_did_again_count_once(tmp_path: Path) -> None:
    resumed = {**HEADER, "resumed_at_step": 20, "ranks": 4}
    lines = [HEADER, step(10), step(20), step(30, loss=9.0), validation_record(5), resumed, step(30), step(40)]
    log = read_run(run_with(tmp_path / "run", lines)).log
    assert [(each["step"], each["loss"]) for each in log.steps] == [(10, 1.0), (20, 1.0), (30, 1.0), (40, 1.0)]
    assert log.validations == []
    assert log.header["ranks"] == 4
    assert log.seconds == 8.0


def test_a_day_that_was_evaluated_again_is_drawn_once(tmp_path: Path) -> None:
    def day(number: int, step: int, ndcg: float) -> dict[str, Any]:
        metrics = {"retrieval": {"ndcg@10": ndcg}, "ranking": {}}
        return {"kind": "day", "day": number, "step": step, **metrics}

    begun = validation_record(1)["step"]
    resumed = {**HEADER, "resumed_at_step": begun}
    lines = [
        HEADER,
        validation_record(1),
        resumed,
        day(1, begun, 0.1),
        resumed,
        day(1, begun, 0.2),
        step(begun + 5),
    ]
    lines += [step(begun + 5), {**HEADER, "resumed_at_step": begun + 5}, day(2, begun + 5, 0.3)]
    charts = validation_section(read_run(run_with(tmp_path / "run", lines))).parts
    assert [each.title for each in charts if isinstance(each, Chart) and "each day" in each.title] == [
        "NDCG@10 of each day before it was trained on"
    ]
    assert [record["retrieval"]["ndcg@10"] for record in read_run(tmp_path / "run").log.days_once] == [0.2, 0.3]


def test_a_last_line_that_is_being_written_is_skipped(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", [HEADER, step(10)])
    with (run / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')
    assert [each["step"] for each in read_run(run).log.steps] == [10]


@pytest.mark.parametrize("line", ['{"kind": "step", "st', "[1]", '{"kind": "header"} trailing'])
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", [HEADER, step(10)])
    with (run / "log.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"log\.jsonl, line 3: no record of a training log"):
        read_run(run)


def test_a_folder_that_is_no_run_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no run here \(neither config\.yaml nor log\.jsonl\)"):
        read_run(tmp_path)


@pytest.mark.parametrize("text", ["data: [1", "- 1\n", "data: 3\n"])
def test_a_damaged_configuration_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml: (the configuration can't be read|no configuration)"):
        read_run(tmp_path)


def test_a_data_set_that_is_gone_is_a_note_and_not_an_error(tmp_path: Path) -> None:
    data = read_run(run_with(tmp_path / "run", [HEADER]))
    assert data.data is None
    assert "no-data: no data set here" in data.data_problem


def test_lengths_are_those_of_the_users(tmp_path: Path) -> None:
    users = drawn_users(20)
    run = run_with(tmp_path / "run", [HEADER, step(10)])
    write_config(run, write_users(tmp_path / "data", users).path)
    facts = read_run(run).data
    assert facts is not None
    assert facts.lengths.tolist() == [len(user) for user in users]


def test_steps_that_were_not_logged_count_too(tmp_path: Path) -> None:
    lines = [HEADER, step(1220), step(1230), {"kind": "finished", "step": 1234, "epoch": 26}]
    assert read_run(run_with(tmp_path / "run", lines)).log.last_step == 1234


def test_without_an_end_the_last_step_is_that_of_the_last_record(tmp_path: Path) -> None:
    lines = [HEADER, step(10), step(230), validation_record(5)]  # after 5 epochs of 48 steps
    assert read_run(run_with(tmp_path / "run", lines)).log.last_step == 240
    resumed = {**HEADER, "resumed_at_step": 48}
    assert read_run(run_with(tmp_path / "resumed", [*lines, resumed])).log.last_step == 48


def test_the_end_of_a_run_that_went_on_counts_no_more(tmp_path: Path) -> None:
    stopped = {"kind": "finished", "step": 34, "epoch": 0}
    went_on = {**HEADER, "resumed_at_step": 34}
    lines = [HEADER, step(30), stopped, went_on, step(40), {"kind": "finished", "step": 48, "epoch": 1}]
    assert read_run(run_with(tmp_path / "run", lines)).log.last_step == 48
    again = {**HEADER, "resumed_at_step": 10}
    assert read_run(run_with(tmp_path / "earlier", [*lines, again, step(20)])).log.last_step == 20


def test_a_run_that_has_just_begun_has_made_no_step(tmp_path: Path) -> None:
    assert read_run(run_with(tmp_path / "run", [HEADER])).log.last_step == 0
