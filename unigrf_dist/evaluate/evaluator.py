"""Evaluation of a model: every user with a held-out event, once, on any number of ranks.

The protocol is that of the README, "How it is evaluated". The whole catalogue is ranked, because metrics over
sampled candidates do not order models as the exact ones do (Krichene and Rendle, KDD 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unigrf_dist.config.task_rule import target_behaviours
from unigrf_dist.data import Dataset, EvaluationBatch, EvaluationStream
from unigrf_dist.data.split import Split
from unigrf_dist.evaluate.baselines import MostRecent, Popularity
from unigrf_dist.evaluate.bootstrap import LEVEL, Bootstrap
from unigrf_dist.evaluate.metric import MetricTable
from unigrf_dist.evaluate.metrics import calibration_bins, ranking_metrics, retrieval_metrics
from unigrf_dist.evaluate.planted import read_planted_optimum
from unigrf_dist.evaluate.scorer import (
    ModelScorer,
    Scorer,
    SequenceScorer,
    UserScores,
    no_users,
    target_labels,
)
from unigrf_dist.evaluate.training_statistics import training_statistics
from unigrf_dist.ranks.collective import Collective

Progress = Callable[[int, int], None]
"""Called with the batches done and their total, on every rank."""


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics of a split; the same on every rank.

    Attributes:
        split: ``validation`` or ``test``.
        num_users: users evaluated: all that have a held-out event.
        protocol: how it was measured, in plain values.
        model: metrics of the model.
        baselines: metrics of each baseline by its name; empty if not asked for.
        planted_optimum: best possible metrics of synthetic data, over all events; None elsewhere, and where
            retrieval is measured on chosen events.
    """

    split: str
    num_users: int
    protocol: dict[str, Any]
    model: MetricTable
    baselines: dict[str, MetricTable]
    planted_optimum: dict[str, Any] | None

    def metrics(self) -> dict[str, dict]:
        """Metrics of the model: ``{"retrieval": {name: value}, "ranking": {task: {name: value or None}}}``."""
        return self.model.values()


def evaluate(
    scorer: SequenceScorer,
    dataset: Dataset,
    *,
    split: Split,
    batch_users: int,
    max_events: int,
    rank: int,
    world_size: int,
    targets: str | None = None,
    bootstrap_samples: int = 1000,
    comparisons: bool = False,
    on_progress: Progress | None = None,
) -> EvaluationResult:
    """Retrieval over the whole catalogue and ranking of the held-out events; collective.

    Args:
        scorer: the model.
        dataset: the data set whose users are evaluated.
        split: which held-out event is predicted.
        batch_users: users per batch and rank.
        max_events: most recent events of history that the model sees.
        rank: rank of this process.
        world_size: number of ranks.
        targets: rule of the held-out events that retrieval is measured on; ranking is measured on all. None for
            all.
        bootstrap_samples: resamples of the users for the confidence intervals; 0 leaves them out.
        comparisons: also evaluate the baselines and read the planted optimum.
        on_progress: told after every batch.

    Raises:
        UserError: the data or the model can't be evaluated.
        RuntimeError: users were lost or counted twice between the ranks.
    """
    scorers: dict[str, Scorer] = {"model": ModelScorer(scorer)}
    live = scorer.live_items()
    if comparisons:
        statistics = training_statistics(dataset, scorer.task_labels, rank=rank, world_size=world_size)
        scorers["popularity"] = Popularity(statistics, live)
        scorers["most_recent"] = MostRecent(statistics, scorer.task_labels, live)
    stream = EvaluationStream(
        dataset, split=split, batch_users=batch_users, max_events=max_events, rank=rank, world_size=world_size
    )
    is_target = torch.tensor(target_behaviours(targets, dataset.manifest.behaviours))
    rows = _Rows(list(scorers), scorer.task_labels, is_target)
    for done, batch in enumerate(stream, start=1):
        rows.add(batch, {name: scorer.score_users(batch) for name, scorer in scorers.items()})
        if on_progress is not None:
            on_progress(done, len(stream))
    expected = dataset.num_users - dataset.manifest.num_training_only_users
    tables = rows.metric_tables(scorer.task_names, expected, Bootstrap(bootstrap_samples))
    return EvaluationResult(
        split=split,
        num_users=expected,
        protocol=_protocol(dataset, max_events, bootstrap_samples, targets, live),
        model=tables.pop("model"),
        baselines=tables,
        planted_optimum=read_planted_optimum(dataset.path, split) if comparisons and targets is None else None,
    )


class _Rows:
    """One row per user and scorer, collected batch by batch.

    Args:
        names: names of the scorers.
        task_labels: ``[num_behaviours, A]`` label of every behaviour code, NaN where it has none.
        is_target: ``[num_behaviours]`` bool, whether retrieval is measured on held-out events of each code.
    """

    def __init__(self, names: list[str], task_labels: Tensor, is_target: Tensor) -> None:
        self._task_labels, self._is_target = task_labels, is_target
        nobody = no_users(task_labels.shape[1])
        self._user_ids, self._labels = [nobody.ranks], [nobody.logits]
        self._found = [nobody.ranks]
        self._scores: dict[str, list[UserScores]] = {name: [nobody] for name in names}

    def add(self, batch: EvaluationBatch, scores: dict[str, UserScores]) -> None:
        self._user_ids.append(batch.batch.user_ids)
        self._labels.append(target_labels(batch.batch, self._task_labels))
        held_out = batch.batch.behaviours[batch.batch.offsets[1:] - 1]
        self._found.append(self._is_target[held_out].long())
        for name, of_scorer in scores.items():
            self._scores[name].append(of_scorer)

    def metric_tables(self, task_names: list[str], expected: int, bootstrap: Bootstrap) -> dict[str, MetricTable]:
        """Metrics over the rows of all ranks, in the order of user ids; collective."""
        user_ids, order = _gathered(self._user_ids).sort()
        if user_ids.numel() != expected or user_ids.unique().numel() != expected:
            raise RuntimeError(
                f"evaluated {user_ids.numel()} users, {user_ids.unique().numel()} different ones, "
                f"but {expected} have a held-out event"
            )
        labels, found = _gathered(self._labels)[order], _gathered(self._found)[order].bool()
        tables = {}
        for name, scores in self._scores.items():
            ranks = _gathered([each.ranks for each in scores])[order]
            logits = _gathered([each.logits for each in scores])[order]
            columns = {task: (logits[:, a], labels[:, a]) for a, task in enumerate(task_names)}
            tables[name] = MetricTable(
                retrieval_metrics(ranks[found], bootstrap),
                {task: ranking_metrics(*column, bootstrap) for task, column in columns.items()},
                {task: calibration_bins(*column) for task, column in columns.items()},
            )
        return tables


def _gathered(parts: list[Tensor]) -> Tensor:
    return torch.cat(Collective().gather_rows(torch.cat(parts)))


def _protocol(
    dataset: Dataset, max_events: int, bootstrap_samples: int, targets: str | None, live: Tensor | None
) -> dict[str, Any]:
    return {
        **({} if targets is None else {"retrieval_targets": targets}),
        "split_rule": dataset.manifest.split_rule,
        "candidates": dataset.num_items if live is None else int(live.sum()),
        **({} if live is None else {"items_without_a_row": "no candidates; as a held-out item never found"}),
        "seen_items": "all earlier items of the user are removed",
        "ties": "half of the items with the target's score stand before it, rounded up",
        "max_events": max_events,
        "bootstrap_samples": bootstrap_samples,
        "confidence_level": LEVEL if bootstrap_samples else None,
    }
