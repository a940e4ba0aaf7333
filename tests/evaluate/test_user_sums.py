"""Metrics from streamed sums against those from the rows of all users."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from tests.evaluate.evaluations import evaluated
from tests.evaluate.small_data import drawn_users, write_users
from unigrf_dist.evaluate import user_sums
from unigrf_dist.evaluate.user_sums import LogitBins


def test_sums_give_the_metrics_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_users(tmp_path / "data", drawn_users(50, seed=4))
    for seen in ("exclude", "keep"):
        rows = evaluated(tmp_path / "data", seen=seen, bootstrap_samples=0)
        with monkeypatch.context() as patched:
            patched.setattr(user_sums, "MOST_ROWS", 49)
            sums = evaluated(tmp_path / "data", seen=seen, bootstrap_samples=0, batch_users=4)
        assert sums.protocol["streamed"]
        assert sums.protocol["users_without_target"] == rows.protocol["users_without_target"]
        for name, table in {"model": sums.model, **sums.baselines}.items():
            other = rows.model if name == "model" else rows.baselines[name]
            assert table.retrieval.keys() == other.retrieval.keys()
            for group, metrics in {"": table.retrieval, **table.retrieval_of}.items():
                expected = other.retrieval_of[group] if group else other.retrieval
                for metric, value in metrics.items():
                    assert value.value == pytest.approx(expected[metric].value, abs=1e-12)
            assert table.ranking.keys() == other.ranking.keys()
            for task, metrics in table.ranking.items():
                for metric, value in metrics.items():
                    error = float(value.note.split()[1]) if metric == "auc" else 1e-6
                    # Two significant digits of the error are told.
                    assert value.value == pytest.approx(other.ranking[task][metric].value, abs=1.1 * error + 1e-12)
                counts = [each.count for each in table.calibration_bins[task]]
                assert counts == [each.count for each in other.calibration_bins[task]]


def test_many_logits_stay_within_the_stated_error_and_in_any_order() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(200_000, generator=generator, dtype=torch.float64) * 0.02 - 1
    labels = (torch.rand(200_000, generator=generator) < (logits * 20 + 20).sigmoid()).double()
    labels[::7] = torch.nan
    known = ~labels.isnan()
    whole, parts = LogitBins(), LogitBins()
    whole.add(logits, labels)
    for part in torch.randperm(200_000, generator=generator).split(30_000):
        parts.add(logits[part], labels[part])
    metrics = whole.metrics()
    assert metrics == parts.metrics()
    truth, found = roc_auc_score(labels[known], logits[known]), metrics["auc"]
    bound = float(found.note.split()[1])
    assert 1e-5 < bound < 2e-2
    assert abs(found.value - truth) < 1.1 * bound
    assert metrics["log_loss"].value == pytest.approx(log_loss(labels[known], logits[known].sigmoid()), abs=1e-7)
    mean = float(logits[known].sigmoid().mean() / labels[known].mean())
    assert metrics["calibration"].value == pytest.approx(mean, abs=1e-6)


def test_signs_and_zeros_are_in_order_and_what_is_undefined_says_why() -> None:
    bins = LogitBins()
    bins.add(torch.tensor([-3.0, -1.0, -0.0, 0.0, 1.0, 3.0]), torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0]))
    assert bins.metrics()["auc"].value == 1.0
    assert bins.sums[1].max() == 2, "minus zero equals zero"
    one = LogitBins()
    one.add(torch.tensor([0.5, 0.7]), torch.tensor([1.0, 1.0]))
    assert one.metrics()["auc"].reason == "all 2 labels are positive"
    one.add(torch.tensor([float("nan")]), torch.tensor([0.0]))
    assert one.metrics()["auc"].of_model
    assert one.metrics()["auc"].reason == "1 of 3 predictions are not finite"
    assert LogitBins().metrics()["ece"].reason == "no labels"


def test_fast_scores_give_the_ranks_within_the_difference_that_is_told(tmp_path: Path) -> None:
    write_users(tmp_path / "data", drawn_users(50, seed=4))
    exact = evaluated(tmp_path / "data", comparisons=False)
    fast = evaluated(tmp_path / "data", comparisons=False, precision="fast")
    # 37 random items are nowhere near each other: fp32 orders them as fixed point does.
    assert fast.model.to_dict() == exact.model.to_dict()
    assert "users differ from exact ones by 0 at most" in fast.protocol["precision"]
