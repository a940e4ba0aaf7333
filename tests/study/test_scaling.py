"""Scaling: the grid, what a training costs, the fitted law."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.study.conftest import ROOT
from unigrf_dist.config import load_config
from unigrf_dist.data import open_dataset
from unigrf_dist.data.dataset import RowGroupReader, RowGroups
from unigrf_dist.errors import UserError
from unigrf_dist.study.flops import epoch_flops
from unigrf_dist.study.power_law import PowerLaw, fit_power_law
from unigrf_dist.study.schema import Scaling, read_scaling

GRID: dict[str, Any] = {
    "base": "base.yaml",
    "seeds": [1, 2],
    "blocks": [1, 2, 3],
    "widths": [16, 32],
    "head_width": 8,
    "metrics": ["hr@10", "log_loss", "auc[rating >= 4]"],
}
X = np.geomspace(1e9, 1e12, 12)


def test_the_grid_is_blocks_times_widths_and_heads_follow_the_rule() -> None:
    runs = Scaling.model_validate(GRID).runs()
    assert list(runs) == ["b1-w16", "b1-w32", "b2-w16", "b2-w32", "b3-w16", "b3-w32"]
    assert runs["b2-w32"].overrides == {
        "model.blocks": 2, "model.width": 32, "model.heads": 4, "model.head_width": 8
    }  # fmt: skip
    fixed = Scaling.model_validate({**GRID, "head_width": None, "heads": 2}).runs()
    assert fixed["b1-w32"].overrides["model.head_width"] == 16


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"heads": 2}, "give one of heads and head_width"),
        ({"head_width": None}, "give one of heads and head_width"),
        ({"widths": [16, 20]}, "widths [20] are no multiples of head_width = 8"),
        ({"blocks": [1, 1]}, "sizes are different numbers above 0"),
        ({"width": [16]}, "unknown key width; did you mean widths?"),
    ],
)
def test_a_mistake_in_the_grid_is_told(study: Callable[..., Any], values: dict[str, Any], words: str) -> None:
    done = study(command="scale", values={**GRID, **values})
    assert isinstance(done.exception, UserError)
    assert words in str(done.exception)


def test_the_shipped_grid_loads() -> None:
    (path,) = (ROOT / "configs").rglob("scaling.yaml")
    study = read_scaling(path)
    assert path.read_text().startswith("# unigrf scale")
    load_config(path.parent / study.base)
    assert len(study.runs()) == 12


@pytest.mark.parametrize("chunks", ["recent", "all"])
def test_flops_of_an_epoch_by_hand(folder: Path, chunks: str) -> None:
    config = load_config(folder / "base.yaml", [f"data.chunks={chunks}"])
    dataset = open_dataset(config.data.path)
    groups = RowGroups.of(dataset.manifest)
    reader = RowGroupReader(dataset)
    lengths = np.concatenate(
        [reader.read(int(s), int(g)).lengths for s, g in zip(groups.shard, groups.group, strict=True)]
    )
    expected = 0.0
    for length in lengths.tolist():
        trained = length - 2 if length >= 3 else length
        rows = [(min(trained, 13), max(min(trained, 13) - 1, 0))]
        # After the first window, full ones with 7 new events behind 6 of context, and the last with the rest.
        rows += [(13, min(7, trained - done)) for done in range(13, trained, 7) if chunks == "all"]
        for events, targets in rows:
            tokens = 2 * events
            products = 2 * tokens * (16 * 64 + 16 * 16) + 2 * targets * 16 * dataset.num_items
            expected += 3 * products + 3.5 * 2 * 16 * tokens**2
    assert epoch_flops(config, dataset) == pytest.approx(expected)


@pytest.mark.parametrize(("a", "b", "c"), [(0.5, 30, 0.25), (2.0, 4000, 0.5), (0.1, 3, 0.08)])
def test_planted_constants_are_recovered(a: float, b: float, c: float) -> None:
    law = fit_power_law(X, a + b * X**-c)
    assert isinstance(law, PowerLaw)
    assert (law.a, law.b, law.c) == pytest.approx((a, b, c), rel=1e-4)
    assert law.determined
    assert law(X) == pytest.approx(a + b * X**-c, rel=1e-6)


def test_the_fit_is_the_best_of_a_fine_search_over_exponents() -> None:
    """For a given exponent the law is linear in floor and factor, so ordinary least squares are exact."""
    y = 0.5 + 30 * X**-0.25 + np.random.default_rng(0).normal(0, 0.002, len(X))
    law = fit_power_law(X, y)
    assert isinstance(law, PowerLaw)
    exponents = np.geomspace(0.01, 3, 4000)
    misses = [
        float(np.linalg.lstsq(np.stack([np.ones_like(X), (X / 1e10) ** -c], axis=1), y)[1][0]) for c in exponents
    ]
    assert law.c == pytest.approx(exponents[int(np.argmin(misses))], rel=2e-3)
    assert float(((law(X) - y) ** 2).sum()) <= min(misses) * (1 + 1e-9)


def test_intervals_hold_the_planted_constants_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 0.002, len(X))
        law = fit_power_law(X, 0.5 + 30 * X**-0.25 + noise)
        assert isinstance(law, PowerLaw)
        held += law.c_interval[0] <= 0.25 <= law.c_interval[1]
        low, high = law.band(X)
        assert (low <= high).all()
    assert held >= 16  # of 19 expected


def test_flat_points_determine_no_exponent() -> None:
    law = fit_power_law(X, 0.5 + np.random.default_rng(0).normal(0, 0.01, len(X)))
    assert isinstance(law, PowerLaw)
    assert not law.determined


def test_a_law_whose_floor_may_be_zero_is_not_called_determined() -> None:
    law = fit_power_law(X, 30 * X**-0.25 * np.exp(np.random.default_rng(1).normal(0, 0.01, len(X))))
    assert isinstance(law, PowerLaw)
    assert law.a_interval[0] == 0
    assert not law.determined


def test_too_few_sizes_are_told() -> None:
    assert fit_power_law(np.array([1.0, 2.0, 3.0] * 3), np.ones(9)) == "a fit needs 4 sizes and 5 runs at least"


def test_a_whole_scaling_study_writes_points_laws_and_drawing(
    study: Callable[..., Any], folder: Path, pretend: Callable[..., None]
) -> None:
    done = study("--parallel", "4", command="scale", values=GRID)
    assert done.exit_code == 0, done.output
    found = json.loads((folder / "out" / "results.json").read_text())
    assert len(found["runs"]) == 12
    small, deep = found["runs"][0], found["runs"][4]
    assert (small["blocks"], small["width"], deep["blocks"]) == (1, 16, 3)
    assert deep["training_flops"] > small["training_flops"] > 0
    # Pretended: the loss is 2 + 40 (width² blocks)^-0.4, and that is the number of dense parameters.
    assert set(found["curves"]) == {
        "retrieval loss (training)",
        "ranking loss (training)",
        "1 - HR@10",
        "log loss",
        "1 - AUC [rating >= 4]",
    }
    law = found["curves"]["retrieval loss (training)"]["training FLOPs"]
    assert law["a"] < law["a_interval"][1]
    text = (folder / "out" / "results.md").read_text()
    assert "| b3-w32 | 2 | 3072 +3840 |" in text
    assert "| log loss | AUC [rating >= 4] |" in text
    assert "| 1 - AUC [rating >= 4] | training FLOPs |" in text
    assert "without a rule: of the first task, rating >= 4." in text
    drawing = ElementTree.parse(folder / "out" / "results.svg").getroot()
    words = "".join(drawing.itertext())
    for word in ("3 blocks", "1 - HR@10", "training FLOPs", "parameters"):
        assert word in words
