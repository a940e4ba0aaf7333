"""Evaluation of a model: every user with a held-out event, once, on any number of ranks.

The protocol is that of the README, "How it is evaluated". The whole catalogue is ranked, because metrics over
sampled candidates do not order models as the exact ones do (Krichene and Rendle, KDD 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unigrf_dist.config.task_rule import target_behaviours
from unigrf_dist.data import Dataset, EvaluationBatch, EvaluationStream
from unigrf_dist.data.seen_rule import SeenRule, items_come_again
from unigrf_dist.data.split import Split
from unigrf_dist.evaluate.baselines import MostRecent, Popularity, RepeatLast
from unigrf_dist.evaluate.bootstrap import LEVEL, Bootstrap
from unigrf_dist.evaluate.meaningful import marked_by_catalogue
from unigrf_dist.evaluate.metric import MetricTable
from unigrf_dist.evaluate.metrics import calibration_bins, ranking_metrics, retrieval_metrics
from unigrf_dist.evaluate.opponents.fit import Opponents, fit_opponents
from unigrf_dist.evaluate.opponents.validation_sample import ValidationSample
from unigrf_dist.evaluate.planted import read_planted_optimum
from unigrf_dist.evaluate.scorer import (
    ModelScorer,
    Scorer,
    SequenceScorer,
    UserScores,
    held_out_behaviours,
    is_retrieval_user,
    no_users,
    target_labels,
)
from unigrf_dist.evaluate.seen_words import seen_protocol
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
        baselines: metrics of each baseline and opponent by its name; empty if not asked for. Some only retrieve,
            some only rank events: what they don't do is empty.
        planted_optimum: best possible metrics of synthetic data, over all events; None elsewhere, and where
            retrieval is measured on chosen events.
        settings: what was picked on validation for each opponent, by its name.
        skipped: why an opponent was left out, by its name.
    """

    split: str
    num_users: int
    protocol: dict[str, Any]
    model: MetricTable
    baselines: dict[str, MetricTable]
    planted_optimum: dict[str, Any] | None
    settings: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

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
    seen: SeenRule = "exclude",
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
        seen: which items leave the ranking. Users whose held-out item is among them are no users of retrieval.
        bootstrap_samples: resamples of the users for the confidence intervals; 0 leaves them out.
        comparisons: also evaluate the baselines and opponents, and read the planted optimum.
        on_progress: told after every batch.

    Raises:
        UserError: the data or the model can't be evaluated.
        RuntimeError: users were lost or counted twice between the ranks.
    """
    scorers: dict[str, Scorer] = {"model": ModelScorer(scorer)}
    is_target = torch.tensor(target_behaviours(targets, dataset.manifest.behaviours))
    share: dict[str, Any] = {
        "batch_users": batch_users,
        "max_events": max_events,
        "rank": rank,
        "world_size": world_size,
        "seen": seen,
    }
    come_again, live = items_come_again(dataset.manifest), scorer.live_items()
    opponents = Opponents()
    if comparisons:
        statistics = training_statistics(dataset, scorer.task_labels, rank=rank, world_size=world_size)
        scorers["popularity"] = Popularity(statistics, live)
        scorers["most_recent"] = MostRecent(statistics, scorer.task_labels, live)
        if come_again and seen == "keep" and live is None:
            scorers["repeat_last"] = RepeatLast(statistics)
        sample = ValidationSample(dataset, is_target, **share)
        opponents = fit_opponents(
            dataset,
            statistics,
            scorer.task_labels,
            sample,
            num_users=dataset.num_users,
            rank=rank,
            world_size=world_size,
            all_live=live is None,
        )
        scorers.update(opponents.scorers)
    stream = EvaluationStream(dataset, split=split, **share)
    rows = _Rows(list(scorers), scorer.task_labels, is_target)
    for done, batch in enumerate(stream, start=1):
        rows.add(batch, {name: scorer.score_users(batch) for name, scorer in scorers.items()})
        if on_progress is not None:
            on_progress(done, len(stream))
    expected = dataset.num_users - dataset.manifest.num_training_only_users
    told_apart = come_again and seen != "exclude"
    tables = rows.metric_tables(scorer.task_names, expected, Bootstrap(bootstrap_samples), told_apart=told_apart)
    tables = {name: _marked(table, dataset.num_items) for name, table in tables.items()}
    return EvaluationResult(
        split=split,
        num_users=expected,
        protocol={
            **_protocol(dataset, max_events, bootstrap_samples, targets, live),
            **seen_protocol(dataset.manifest, seen, rows.num_removed),
        },
        model=tables.pop("model"),
        baselines=tables,
        planted_optimum=read_planted_optimum(dataset.path, split) if comparisons and targets is None else None,
        settings=opponents.settings,
        skipped=opponents.skipped,
    )


def _marked(table: MetricTable, num_items: int) -> MetricTable:
    groups = {group: marked_by_catalogue(metrics, num_items) for group, metrics in table.retrieval_of.items()}
    return replace(table, retrieval=marked_by_catalogue(table.retrieval, num_items), retrieval_of=groups)


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
        no_integers, no_rows = torch.zeros(0, dtype=torch.int64), torch.zeros(0, task_labels.shape[1])
        self._user_ids, self._labels = [no_integers], [no_rows.double()]
        self._groups = [torch.zeros(0, 3, dtype=torch.bool)]
        self.num_removed = 0
        self._scores: dict[str, list[UserScores]] = {name: [nobody] for name in names}

    def add(self, batch: EvaluationBatch, scores: dict[str, UserScores]) -> None:
        self._user_ids.append(batch.batch.user_ids)
        self._labels.append(target_labels(batch.batch, self._task_labels))
        found, repeats = is_retrieval_user(batch, self._is_target), batch.target_repeats
        removed = self._is_target[held_out_behaviours(batch.batch)] & batch.target_removed
        self._groups.append(torch.stack([found, repeats, removed], dim=1))
        for name, of_scorer in scores.items():
            self._scores[name].append(of_scorer)

    def metric_tables(
        self, task_names: list[str], expected: int, bootstrap: Bootstrap, *, told_apart: bool
    ) -> dict[str, MetricTable]:
        """Metrics over the rows of all ranks, in the order of user ids; collective.

        Args:
            task_names: ``A`` names of ranking tasks.
            expected: users that there must be.
            bootstrap: how the confidence intervals are made.
            told_apart: also measure retrieval on new and on repeated targets alone.
        """
        user_ids, order = _gathered(self._user_ids).sort()
        if user_ids.numel() != expected or user_ids.unique().numel() != expected:
            raise RuntimeError(
                f"evaluated {user_ids.numel()} users, {user_ids.unique().numel()} different ones, "
                f"but {expected} have a held-out event"
            )
        labels = _gathered(self._labels)[order]
        found, repeats, removed = _gathered(self._groups)[order].unbind(1)
        self.num_removed = int(removed.sum())
        groups = {"new": found & ~repeats, "repeated": found & repeats} if told_apart else {}
        tables = {}
        for name, scores in self._scores.items():
            ranks = _gathered_scores([each.ranks for each in scores])
            logits = _gathered_scores([each.logits for each in scores])
            columns = (
                {}
                if logits is None
                else {task: (logits[order, a], labels[:, a]) for a, task in enumerate(task_names)}
            )
            tables[name] = MetricTable(
                {} if ranks is None else retrieval_metrics(ranks[order][found], bootstrap),
                {task: ranking_metrics(*column, bootstrap) for task, column in columns.items()},
                {task: calibration_bins(*column) for task, column in columns.items()},
                {
                    group: retrieval_metrics(ranks[order][members], bootstrap)
                    for group, members in groups.items()
                    if ranks is not None
                },
            )
        return tables


def _gathered_scores(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Scores of all ranks; None of a scorer that has none of this kind, which every batch of it says."""
    if parts[-1] is None:
        return None
    return _gathered([part for part in parts if part is not None])


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
        "ties": "half of the items with the target's score stand before it, rounded up",
        "max_events": max_events,
        "bootstrap_samples": bootstrap_samples,
        "confidence_level": LEVEL if bootstrap_samples else None,
    }
