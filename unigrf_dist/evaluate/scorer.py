"""What can be evaluated: a scorer gives each user's held-out item a rank, and a logit per ranking task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unigrf_dist.data import EvaluationBatch, JaggedBatch
from unigrf_dist.evaluate.catalogue import ShardedCatalogue
from unigrf_dist.evaluate.live_catalogue import LiveCatalogue
from unigrf_dist.model.unigrf import SequenceScores


class SequenceScorer(Protocol):
    """A model as evaluation sees it. ``score`` and ``catalogue`` are collective."""

    @property
    def task_names(self) -> list[str]:
        """``A`` names of ranking tasks."""
        ...

    @property
    def task_labels(self) -> Tensor:
        """``[num_behaviours, A]``, the label of every behaviour code under every task, NaN if it has none."""
        ...

    def score(self, batch: JaggedBatch) -> SequenceScores: ...

    def catalogue(self) -> ShardedCatalogue | LiveCatalogue: ...

    def live_items(self) -> Tensor | None:
        """``[num_items]`` bool, the items that are candidates; None for all."""
        ...


@dataclass(frozen=True)
class UserScores:
    """What is kept of ``B`` users, on the CPU.

    Attributes:
        ranks: ``[B]`` int64, rank of the held-out item in the catalogue, 1 is best; None of a scorer that only
            ranks events.
        logits: ``[B, A]`` float64; None of a scorer that only retrieves.
    """

    ranks: Tensor | None
    logits: Tensor | None


class Scorer(Protocol):
    """The model or a baseline."""

    def score_users(self, batch: EvaluationBatch) -> UserScores:
        """Collective; ``batch`` may be empty."""
        ...


class ModelScorer:
    """A trained model.

    Args:
        scorer: the model; its weights must not change while this object is in use.
    """

    def __init__(self, scorer: SequenceScorer) -> None:
        self._scorer, self._catalogue = scorer, scorer.catalogue()

    def score_users(self, batch: EvaluationBatch) -> UserScores:
        scores = self._scorer.score(batch.batch)
        if not bool(scores.valid.all()):
            users = batch.batch.user_ids[~scores.valid.cpu()].tolist()
            raise ValueError(f"users {users[:5]} have no event before the held-out one; the split keeps two")
        ranks = self._catalogue.target_ranks(
            scores.queries, target_items(batch.batch), batch.seen_item_ids, batch.seen_offsets
        )
        return UserScores(ranks.cpu(), scores.ranking_logits.detach().cpu().double())


def target_items(batch: JaggedBatch) -> Tensor:
    """``[B]`` item of each user's last event."""
    return batch.item_ids[batch.offsets[1:] - 1]


def held_out_behaviours(batch: JaggedBatch) -> Tensor:
    """``[B]`` behaviour code of each user's last event."""
    return batch.behaviours[batch.offsets[1:] - 1]


def is_retrieval_user(batch: EvaluationBatch, is_target: Tensor) -> Tensor:
    """``[B]`` bool, whether retrieval is measured on each user: the held-out event is a target and stays ranked.

    Args:
        batch: ``B`` users.
        is_target: ``[num_behaviours]`` bool, whether events of each code are targets of retrieval.
    """
    return is_target[held_out_behaviours(batch.batch)] & ~batch.target_removed


def target_labels(batch: JaggedBatch, task_labels: Tensor) -> Tensor:
    """``[B, A]`` labels of each user's last event."""
    return task_labels.double()[held_out_behaviours(batch)]


def no_users(num_tasks: int) -> UserScores:
    """Scores of nobody."""
    return UserScores(torch.zeros(0, dtype=torch.int64), torch.zeros(0, num_tasks, dtype=torch.float64))
