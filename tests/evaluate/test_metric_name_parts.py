"""All parts of a metric name that was read, with one task and with several."""

from __future__ import annotations

import dataclasses

import pytest

from unigrf_dist.evaluate.metric_names import read_metric_name

ONE, TWO = ["click == 1"], ["click == 1", "like == 1"]


@pytest.mark.parametrize(
    ("text", "tasks", "parts"),
    [
        ("mrr", ONE, ("mrr", None, False, False)),
        ("mrr", TWO, ("mrr", None, False, False)),
        ("auc", ONE, ("auc", "click == 1", False, True)),
        ("auc", TWO, ("auc", "click == 1", True, True)),
        ("auc[click==1]", ONE, ("auc", "click == 1", False, False)),
        ("auc[like==1]", TWO, ("auc", "like == 1", True, False)),
    ],
)
def test_a_name_tells_its_task_and_whether_it_was_named_or_taken(
    text: str, tasks: list[str], parts: tuple[str, str | None, bool, bool]
) -> None:
    assert dataclasses.astuple(read_metric_name(text, tasks)) == parts
