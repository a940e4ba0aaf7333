"""Evaluation of a model: every user with a held-out event, once, on any number of ranks.

The protocol is that of the README, "How it is evaluated". The whole catalogue is ranked, because metrics over
sampled candidates do not order models as the exact ones do (Krichene and Rendle, KDD 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unigrf_dist.config.task_rule import target_behaviours
from unigrf_dist.data import Dataset, EvaluationStream
from unigrf_dist.data.seen_rule import SeenRule, items_come_again
from unigrf_dist.data.split import LAST_EVENTS, EvaluatedSplit
from unigrf_dist.evaluate import user_sums
from unigrf_dist.evaluate.baselines import MostRecent, Popularity, RepeatLast
from unigrf_dist.evaluate.bootstrap import LEVEL, Bootstrap
from unigrf_dist.evaluate.meaningful import marked_by_catalogue
from unigrf_dist.evaluate.metric import MetricTable
from unigrf_dist.evaluate.opponents.fit import Opponents, fit_opponents
from unigrf_dist.evaluate.opponents.validation_sample import ValidationSample
from unigrf_dist.evaluate.planted import read_planted_optimum
from unigrf_dist.evaluate.scorer import ModelScorer, Precision, Scorer, SequenceScorer
from unigrf_dist.evaluate.seen_words import sample_protocol, seen_protocol
from unigrf_dist.evaluate.training_statistics import training_statistics
from unigrf_dist.evaluate.user_rows import UserRows
from unigrf_dist.evaluate.user_sums import UserSums
from unigrf_dist.ranks.collective import Collective

DAY_RULE = "per user of the day: its first event of the day that has one before it"
Progress = Callable[[int, int], None]
"""Called with the batches done and their total, on every rank."""


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics of a split; the same on every rank.

    Attributes:
        split: ``validation``, ``test`` or ``day``.
        num_users: users evaluated: those that have a held-out event, all or a sample.
        protocol: how it was measured, in plain values.
        model: metrics of the model.
        baselines: metrics of each baseline and opponent by its name; empty if not asked for. Some only retrieve,
            some only rank events: what they don't do is empty.
        planted_optimum: best possible metrics of synthetic data, over all events; None elsewhere, and where
            retrieval is measured on chosen events or users, or the split is another one.
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
    split: EvaluatedSplit,
    batch_users: int,
    max_events: int,
    rank: int,
    world_size: int,
    targets: str | None = None,
    seen: SeenRule = "exclude",
    users: int | None = None,
    precision: Precision = "exact",
    bootstrap_samples: int = 1000,
    comparisons: bool = False,
    on_progress: Progress | None = None,
) -> EvaluationResult:
    """Retrieval over the whole catalogue and ranking of the held-out events; collective.

    Args:
        scorer: the model.
        dataset: the data set whose users are evaluated.
        split: which held-out event is predicted; under ``day`` the first one of the day, of a data set as
            ``only_day`` gives it. Comparisons are not for a day.
        batch_users: users per batch and rank.
        max_events: most recent events of history that the model sees.
        rank: rank of this process.
        world_size: number of ranks.
        targets: rule of the held-out events that retrieval is measured on; ranking is measured on all. None for
            all.
        seen: which items leave the ranking. Users whose held-out item is among them are no users of retrieval.
        users: about so many users are evaluated, drawn by a hash of their ids; None for all.
        precision: how the model's scores of the catalogue are computed.
        bootstrap_samples: resamples of the users for the confidence intervals; 0 leaves them out.
        comparisons: also evaluate the baselines and opponents, and read the planted optimum.
        on_progress: told after every batch.

    Raises:
        UserError: the data or the model can't be evaluated.
        RuntimeError: users were lost or counted twice between the ranks.
    """
    model = ModelScorer(scorer, precision)
    scorers: dict[str, Scorer] = {"model": model}
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
            num_users=dataset.num_users if users is None else min(users, dataset.num_users),
            rank=rank,
            world_size=world_size,
            all_live=live is None,
        )
        scorers.update(opponents.scorers)
    stream = EvaluationStream(dataset, split=split, users=users, **share)
    asked_for = dataset.num_users_read if users is None else min(users, dataset.num_users_read)
    streamed = asked_for > user_sums.MOST_ROWS
    rows = (UserSums if streamed else UserRows)(list(scorers), scorer.task_labels, is_target)
    for done, batch in enumerate(stream, start=1):
        rows.add(batch, {name: scorer.score_users(batch) for name, scorer in scorers.items()})
        if on_progress is not None:
            on_progress(done, len(stream))
    # How many users come back on a day with a history is not known before they are read.
    everyone = dataset.num_users_read if split == "day" else dataset.num_held_out(split)
    sampled = asked_for < dataset.num_users_read
    told_apart = come_again and seen != "exclude"
    dropped = int(Collective().sum(torch.tensor(stream.num_dropped)))
    expected = stream.num_users - dropped if sampled or split == "day" else everyone
    tables = rows.metric_tables(scorer.task_names, expected, Bootstrap(bootstrap_samples), told_apart=told_apart)
    tables = {name: _marked(table, dataset.num_items) for name, table in tables.items()}
    # The optimum is that of all users and events.
    whole = comparisons and targets is None and not sampled
    return EvaluationResult(
        split=split,
        num_users=expected,
        protocol={
            **_protocol(dataset, max_events, 0 if streamed else bootstrap_samples, targets, live),
            **({"split_rule": DAY_RULE} if split == "day" else {}),
            **seen_protocol(dataset.manifest, seen, rows.num_removed),
            **(sample_protocol(expected, everyone) if sampled else {}),
            **({"precision": _fast_words(model)} if precision == "fast" else {}),
            **({"streamed": user_sums.STREAMED_WORDS} if streamed else {}),
        },
        model=tables.pop("model"),
        baselines=tables,
        planted_optimum=_planted_optimum(dataset, split) if whole else None,
        settings=opponents.settings,
        skipped=opponents.skipped,
    )


def _planted_optimum(dataset: Dataset, split: EvaluatedSplit) -> dict[str, Any] | None:
    """Best possible metrics of synthetic data, which are those of the last events."""
    return read_planted_optimum(dataset.path, split) if dataset.split == LAST_EVENTS else None


def _marked(table: MetricTable, num_items: int) -> MetricTable:
    groups = {group: marked_by_catalogue(metrics, num_items) for group, metrics in table.retrieval_of.items()}
    return replace(table, retrieval=marked_by_catalogue(table.retrieval, num_items), retrieval_of=groups)


def _protocol(
    dataset: Dataset, max_events: int, bootstrap_samples: int, targets: str | None, live: Tensor | None
) -> dict[str, Any]:
    return {
        **({} if targets is None else {"retrieval_targets": targets}),
        "split_rule": dataset.split_rule,
        "candidates": dataset.num_items if live is None else int(live.sum()),
        **({} if live is None else {"items_without_a_row": "no candidates; as a held-out item never found"}),
        "ties": "half of the items with the target's score stand before it, rounded up",
        "max_events": max_events,
        "bootstrap_samples": bootstrap_samples,
        "confidence_level": LEVEL if bootstrap_samples else None,
    }


def _fast_words(model: ModelScorer) -> str:
    ranks = Collective()
    largest = int(ranks.maximum(torch.tensor(model.largest_difference)))
    compared = int(ranks.sum(torch.tensor(model.num_compared)))
    return f"scores in fp32: ranks of the first {compared:,} users differ from exact ones by {largest:,} at most"
