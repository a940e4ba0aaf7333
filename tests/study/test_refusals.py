"""What an ablation refuses before it starts a run: mistakes of its file, its variants and its command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.small_data import write_users
from tests.study.conftest import changed
from unigrf_dist.errors import UserError

Study = Callable[..., Any]


def test_mistakes_of_all_variants_are_told_at_once_and_nothing_is_run(
    study: Study, folder: Path, pretend: Callable[..., None]
) -> None:
    values = changed()
    values["variants"]["a"] = {"overrides": {"model.widht": 3}}
    values["variants"]["b"] = {"overrides": {"train.epochs": 0}}
    values["variants"]["c"] = {"overrides": {"objective.ranking": [{"rule": "stars > 1"}]}}
    done = study(values=values)
    assert isinstance(done.exception, UserError)
    message = str(done.exception)
    for words in (
        "variant a: unknown key model.widht; did you mean width?",
        "variant b: train.epochs = 0",
        "'stars'",
    ):
        assert words in message
    assert "\n" not in message
    assert message.count("variant a") == 1  # not once per seed
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"train.selection.metric": "auk"}, "train.selection.metric is 'auk'; allowed: hr@1"),
        ({"model.item_features": ["genre"]}, "model.item_features names genre"),
        ({"data.partitions": 1}, "data.partitions = 1, but 2 ranks"),
    ],
)
def test_what_train_would_refuse_is_refused_before_anything_is_run(
    study: Study, folder: Path, pretend: Callable[..., None], overrides: dict[str, Any], words: str
) -> None:
    values = changed()
    values["variants"]["odd"] = {"overrides": overrides}
    done = study("--ranks", "2", values=values)
    assert isinstance(done.exception, UserError)
    assert "variant odd: " in str(done.exception)
    assert words in str(done.exception)
    assert "variant naive" not in str(done.exception)
    assert not (folder / "out").exists()


def test_a_variant_over_data_that_nothing_can_be_measured_on_is_refused(
    study: Study, folder: Path, pretend: Callable[..., None]
) -> None:
    short = write_users(folder / "short", [[(0, 0, 1), (1, 2, 2)], [(2, 2, 1)]])
    values = changed()
    values["variants"]["short"] = {"overrides": {"data.path": str(short.path)}}
    done = study(values=values)
    assert isinstance(done.exception, UserError)
    assert f"variant short: {short.path}: no user has the 3 events" in str(done.exception)
    assert not (folder / "out").exists()


def test_a_metric_of_a_task_that_no_variant_has_is_refused(study: Study, folder: Path) -> None:
    done = study(values=changed(metrics=["auc[click == 1]"]))
    assert isinstance(done.exception, UserError)
    assert "metrics: auc[click == 1]: no variant has this ranking task; there are: rating >= 4" in str(
        done.exception
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"metrics": ["auc[click]"]}, "'click' is no task rule"),
        ({"metrics": ["mrr[click == 1]"]}, "of any ranking task auc[RULE], log_loss[RULE], ece[RULE]"),
        ({"sedes": [1]}, "unknown key sedes; did you mean seeds?"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "a seed is given twice"),
        ({"baseline": "nothing"}, "baseline = 'nothing': no such variant; there are: naive"),
        ({"metrics": ["hr@7"]}, "no such metric: hr@7; there are: hr@1"),
        (
            {"variants": {"naive": {"overides": {}}}},
            "unknown key variants.naive.overides; did you mean overrides?",
        ),
        ({"variants": {"naive": {"overrides": {"train.seed": 3}}}}, "train.seed belongs into seeds"),
        ({"variants": {"../naive": {}}, "baseline": "../naive"}, "is no name of a folder"),
        ({"base": "absent.yaml"}, "absent.yaml: can't read the configuration"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_key(study: Study, values: dict[str, Any], words: str) -> None:
    done = study(values=changed(**values))
    assert isinstance(done.exception, UserError)
    assert words in str(done.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "other"], "--only other: no such variant; there are: naive, retrieval_only, wide"),
        (["--seeds", "1,x"], "--seeds x: a seed is a whole number"),
        (["--ranks", "65"], "data.partitions = 64, but 65 ranks"),
    ],
)
def test_a_mistake_on_the_command_line_is_told(study: Study, words: list[str], message: str) -> None:
    assert message in str(study(*words).exception)
