"""What is kept of every user while an evaluation runs: ranks, logits and labels; and the metrics over them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unigrf_dist.data import EvaluationBatch
from unigrf_dist.evaluate.bootstrap import Bootstrap
from unigrf_dist.evaluate.metric import MetricTable
from unigrf_dist.evaluate.metrics import calibration_bins, ranking_metrics, retrieval_metrics
from unigrf_dist.evaluate.scorer import (
    UserScores,
    held_out_behaviours,
    is_retrieval_user,
    no_users,
    target_labels,
)
from unigrf_dist.ranks.collective import Collective


class UserRows:
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
