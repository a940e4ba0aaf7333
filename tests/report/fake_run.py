"""The folder of a run as training and evaluation leave it, with curves that look like real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from unigrf_dist.evaluate.bootstrap import Bootstrap
from unigrf_dist.evaluate.evaluator import EvaluationResult
from unigrf_dist.evaluate.metric import MetricTable
from unigrf_dist.evaluate.metrics import calibration_bins, ranking_metrics, retrieval_metrics
from unigrf_dist.evaluate.metrics_file import write_metrics

TASK = "rating >= 4"
STEPS_PER_EPOCH, EPOCHS = 48, 60
HEADER = {
    "kind": "header",
    "users": 6040,
    "items": 3706,
    "events": 1000209,
    "ranks": 2,
    "device": "cpu",
    "zero_stage": 2,
    "dense_parameters": 36683,
    "steps_per_epoch": STEPS_PER_EPOCH,
    "resumed_at_step": 0,
}


def write_config(run: Path, data: Path) -> None:
    config = {
        "data": {"path": str(data), "max_events": 10},
        "model": {"backbone": "hstu", "width": 50, "blocks": 2, "heads": 1, "position_bias": True},
        "objective": {"retrieval": {"temperature": 0.05}, "ranking": [{"rule": TASK, "weight": 1.0}]},
        "train": {"epochs": EPOCHS, "selection": {"metric": "ndcg@10", "patience": None}},
        "kernel": "auto",
        "deepspeed": {"optimizer": {"type": "AdamW", "params": {"lr": 0.001, "betas": [0.9, 0.98]}}},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def step_record(step: int, noise: np.random.Generator) -> dict[str, Any]:
    done = step / (STEPS_PER_EPOCH * EPOCHS)
    retrieval = 5.6 + 2.6 * np.exp(-6 * done) + 0.08 * noise.standard_normal()
    ranking = 0.52 + 0.17 * np.exp(-8 * done) + 0.008 * noise.standard_normal()
    weight = 1 + 0.6 * done + 0.02 * noise.standard_normal()
    return {
        "kind": "step",
        "step": step,
        "epoch": step // STEPS_PER_EPOCH,
        "loss": (2 - weight) * retrieval + weight * ranking,
        "loss_retrieval": retrieval,
        "loss_ranking": ranking,
        "weight_retrieval": 2 - weight,
        "weight_ranking": weight,
        "grad_norm_retrieval": 0.05 * np.exp(0.3 * noise.standard_normal()),
        "grad_norm_ranking": 0.004 * np.exp(0.3 * noise.standard_normal()),
        "lr": 0.001 * min(1.0, 20 * done),
        "events_per_second": 31000 + 900 * noise.standard_normal(),
        "seconds": 4.4,
    }


def validation_record(epoch: int) -> dict[str, Any]:
    grown = 1 - np.exp(-epoch / 15)
    retrieval = {"hr@1": 0.06, "hr@10": 0.3, "hr@50": 0.56, "hr@200": 0.78, "ndcg@10": 0.165, "ndcg@50": 0.22}
    retrieval |= {"ndcg@200": 0.26, "mrr": 0.14}
    metrics = {"auc": 0.72 + 0.075 * grown - 0.0004 * max(epoch - 35, 0), "log_loss": 0.6 - 0.055 * grown}
    return {
        "kind": "validation",
        "step": epoch * STEPS_PER_EPOCH,
        "epoch": epoch,
        "best": True,
        "retrieval": {name: value * grown for name, value in retrieval.items()},
        "ranking": {TASK: {**metrics, "calibration": 1.0, "ece": 0.02}},
    }


def log_lines(epochs: int = EPOCHS) -> list[dict[str, Any]]:
    noise = np.random.default_rng(1)
    lines: list[dict[str, Any]] = [HEADER]
    for step in range(10, epochs * STEPS_PER_EPOCH + 1, 10):
        lines.append(step_record(step, noise))
        epoch = step // STEPS_PER_EPOCH
        if epoch % 5 == 0 and epoch and step % STEPS_PER_EPOCH < 10:
            lines.append(validation_record(epoch))
    return lines


def write_log(run: Path, lines: list[dict[str, Any]]) -> None:
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def metric_table(seed: int, rank_scale: float, signal: float, num_users: int = 2000) -> MetricTable:
    random = torch.Generator().manual_seed(seed)
    ranks = (torch.rand(num_users, generator=random) ** (1 / rank_scale) * 3700).long() + 1
    truth = torch.randn(num_users, generator=random) + 0.3
    labels = (torch.rand(num_users, generator=random) < truth.sigmoid()).double()
    logits = signal * truth + 0.5 * torch.randn(num_users, generator=random) + 0.1
    bootstrap = Bootstrap(samples=100)
    return MetricTable(
        retrieval_metrics(ranks, bootstrap),
        {TASK: ranking_metrics(logits, labels, bootstrap)},
        {TASK: calibration_bins(logits, labels)},
    )


def evaluation(split: str = "test", *, planted: bool = True) -> EvaluationResult:
    optimum = {
        "retrieval": {"hr@1": 0.2, "hr@10": 0.42, "ndcg@10": 0.26, "mrr": 0.24},
        "ranking": {TASK: {"auc": 0.79, "log_loss": 0.55}},
    }
    protocol = {
        "candidates": 3706,
        "seen_items": "all earlier items of the user are removed",
        "query_time_visible": False,
        "confidence_level": 0.95,
    }
    return EvaluationResult(
        split,
        2000,
        protocol,
        metric_table(1, 0.22, 0.9),
        {"popularity": metric_table(2, 0.45, 0.35), "most_recent": metric_table(3, 0.7, 0.25)},
        optimum if planted else None,
    )


def write_run(run: Path, data: Path) -> Path:
    """A finished and evaluated run."""
    run.mkdir()
    write_config(run, data)
    write_log(run, log_lines())
    for split in ("test", "validation"):
        write_metrics(run, evaluation(split), checkpoint="step-00002400", step=2400, data=run)
    return run
