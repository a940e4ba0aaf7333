"""The page: whole, alone, and honest about what is not there."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.evaluate.small_data import drawn_users, write_users
from tests.report.fake_run import (
    HEADER,
    TASK,
    evaluation,
    log_lines,
    validation_record,
    write_config,
    write_log,
    write_run,
)
from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.metric import Metric, MetricTable
from unigrf_dist.evaluate.metrics_file import write_metrics
from unigrf_dist.report import write_report
from unigrf_dist.report.palette import DARK, LIGHT

_VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags close in order; collects text, ids and whatever the page would load."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset") and not (value or "").startswith("#"):
                self.loads.append(f"{tag} {name}={value}")
        if tag in ("script", "link", "iframe"):
            self.loads.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run that has everything."""
    folder = tmp_path_factory.mktemp("finished")
    data = write_users(folder / "data", drawn_users(40))
    return write_report(write_run(folder / "my-run", data.path))


def test_the_page_stands_in_the_run_folder_and_needs_nothing_else(finished: Path) -> None:
    assert (finished.parent.name, finished.name) == ("my-run", "report.html")
    page = Page(finished)
    assert page.loads == []
    assert "url(http" not in finished.read_text()
    assert "@import" not in finished.read_text()
    assert finished.stat().st_size < 600_000
    assert not list(finished.parent.glob("*.partial"))


def test_every_part_is_there(finished: Path) -> None:
    text = Page(finished).text
    for part in (
        "my-run", "Metrics on the test events", "Metrics on the validation events", "Hit rate", "NDCG and MRR",
        "Retrieval loss", "Ranking loss", "Task weights", "Gradient norms", "Learning rate", "Events per second",
        f"Calibration of {TASK}", "Events per user", "Configuration", "popularity", "most recent", "best possible",
        "60 of 60", "2,880", "36,683",
    ):  # fmt: skip
        assert part in text, part
    assert "not there yet" not in text.lower()


def test_metrics_on_the_page_are_those_of_the_file(finished: Path) -> None:
    text, model = Page(finished).text, evaluation().model
    for metric in (*model.retrieval.values(), *model.ranking[TASK].values()):
        assert f"{metric.value:.4f} {metric.low:.4f} – {metric.high:.4f}" in text


def test_ids_are_unique_and_references_have_a_target(finished: Path) -> None:
    ids = Page(finished).ids
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:url\(#|href="#)([^")]+)', finished.read_text())
    assert used
    assert set(used) <= set(ids)


def test_a_run_that_only_trained_says_how_to_get_the_rest(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_config(run, tmp_path / "data-elsewhere")
    write_log(run, log_lines(epochs=10))
    text = Page(write_report(run)).text
    assert f"Not there yet: run unigrf evaluate --run {run}" in text
    assert f"Calibration is not there yet: run unigrf evaluate --run {run}" in text
    assert "data-elsewhere: no data set here" in text
    assert "validation, epoch 10" in text
    assert "10 of 60" in text


def test_a_run_that_has_just_begun_is_a_page_too(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_log(run, [HEADER])
    text = Page(write_report(run)).text
    assert "No step is logged yet" in text
    assert "No validation is logged yet" in text
    assert "config.yaml is not there" in text


def test_an_undefined_metric_shows_its_reason(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_log(run, [HEADER])
    result = evaluation(planted=False)
    metrics = {**result.model.ranking[TASK], "auc": Metric(None, reason="all 7 labels are positive")}
    write_metrics(
        run,
        replace(result, model=replace(result.model, ranking={TASK: metrics})),
        checkpoint="best",
        step=1,
        data=run,
    )
    text = Page(write_report(run)).text
    assert "all 7 labels are positive" in text


def test_steps_of_the_page_are_those_of_the_run_not_of_its_log(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_log(run, [*log_lines(epochs=10), {"kind": "finished", "step": 484, "epoch": 10}])
    assert "steps 484" in Page(write_report(run)).text


def test_every_ranking_task_has_its_card_its_rows_and_its_lines(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    click = {"auc": 0.6543, "log_loss": 0.321, "calibration": 1.0, "ece": 0.01}
    record = validation_record(5)
    record["ranking"]["click == 1"] = click
    write_log(run, [HEADER, record])
    text = Page(write_report(run)).text
    assert "AUC, click == 1 validation, epoch 5 0.6543" in text
    assert f"AUC, {TASK}" in text
    assert "click == 1 best 0.3210" in text
    result = evaluation(planted=False)
    tables = {
        name: replace(table, ranking={**table.ranking, "click == 1": {key: Metric(0.25) for key in click}})
        for name, table in {"model": result.model, **result.baselines}.items()
    }
    model = tables.pop("model")
    write_metrics(run, replace(result, model=model, baselines=tables), checkpoint="best", step=1, data=run)
    text = Page(write_report(run)).text
    assert "Ranking: click == 1" in text
    assert "AUC, click == 1 on test events 0.2500" in text


def test_the_page_says_where_the_model_is_below_an_opponent_and_which_was_left_out(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_log(run, [HEADER, validation_record(5)])
    result = evaluation()
    above = {name: Metric(2.0 if name == "hr@10" else 0.0) for name in result.model.retrieval}
    baselines = {**result.baselines, "transition_knn": MetricTable(above, {})}
    changed = replace(result, baselines=baselines, skipped={"ease": "9,000 items, more than 8,000"})
    write_metrics(run, changed, checkpoint="best", step=1, data=run)
    text = Page(write_report(run)).text
    assert "he model is below transition kNN in hr@10; no EASE: 9,000 items, more than 8,000." in text


def test_every_colour_of_the_page_is_of_the_palette(finished: Path) -> None:
    allowed = {*LIGHT.variables().values(), *DARK.variables().values(), "#000000"}  # matplotlib's own default
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", finished.read_text())) <= allowed


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    run = tmp_path / "<b>run&"
    run.mkdir()
    write_config(run, Path("<script>alert(1)</script>"))
    file = write_report(run)
    assert "<script>" not in file.read_text()
    assert "<script>alert(1)</script>" in Page(file).text
    assert "<b>run&" in Page(file).text


def test_the_report_goes_where_it_is_told_and_says_why_it_cannot(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_log(run, [HEADER])
    assert write_report(run, tmp_path / "page.html") == tmp_path / "page.html"
    assert not (run / "report.html").exists()
    with pytest.raises(UserError, match=r"page\.html: the report can't be written: No such file"):
        write_report(run, tmp_path / "missing" / "page.html")
