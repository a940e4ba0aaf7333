"""The users on whose validation events an opponent's settings are picked."""

from __future__ import annotations

import torch
from torch import Tensor

from unigrf_dist.data import Dataset, EvaluationBatch, EvaluationStream, JaggedBatch
from unigrf_dist.data.seen_rule import SeenRule
from unigrf_dist.evaluate.opponents.item_to_item import ItemToItem
from unigrf_dist.evaluate.opponents.search import Family, climb
from unigrf_dist.evaluate.scorer import is_retrieval_user
from unigrf_dist.ranks.collective import Collective
from unigrf_dist.ranks.progress import reached

MOST_USERS = 3_000
"""About so many users pick the settings, drawn by a hash of the user's id; all, where there are fewer."""

_CUTOFF = 10
# Knuth's multiplicative hash: neighbouring ids are spread evenly.
_HASH_FACTOR, _HASH_RANGE = 2_654_435_761, 1 << 32


class ValidationSample:
    """Validation events of some users with the history before them, this rank's share, held in memory.

    Args:
        dataset: data set to read.
        is_target: ``[num_behaviours]`` bool, whether retrieval is measured on held-out events of each code.
        batch_users: users per batch.
        max_events: most recent events of history.
        rank: rank of this process.
        world_size: number of ranks.
        seen: which items leave the ranking.
    """

    def __init__(
        self,
        dataset: Dataset,
        is_target: Tensor,
        *,
        batch_users: int,
        max_events: int,
        rank: int,
        world_size: int,
        seen: SeenRule,
    ) -> None:
        stream = EvaluationStream(
            dataset,
            split="validation",
            batch_users=batch_users,
            max_events=max_events,
            rank=rank,
            world_size=world_size,
            seen=seen,
        )
        held_out = dataset.num_users - dataset.manifest.num_training_only_users
        below = _HASH_RANGE * MOST_USERS // max(held_out, MOST_USERS)
        self.batches = [_of_users(batch, _hash(batch.batch.user_ids) < below) for batch in stream]
        self._is_target = is_target

    def best(self, family: Family) -> tuple[ItemToItem, str]:
        """The opponent of the highest NDCG@10 that a search finds, and its settings in words; on any number of
        ranks the same; collective."""

        def value_of(candidate: ItemToItem) -> float:
            reached("settings of an opponent on validation")
            return self._ndcg(candidate)

        return climb(family, value_of)

    def _ndcg(self, candidate: ItemToItem) -> float:
        hits = torch.zeros(_CUTOFF + 2, dtype=torch.int64)
        for batch in self.batches:
            ranks = candidate.score_users(batch).ranks
            assert ranks is not None
            ranks = ranks[is_retrieval_user(batch, self._is_target)]
            hits += ranks.clamp_max(_CUTOFF + 1).bincount(minlength=_CUTOFF + 2)
        # Counts are summed over ranks and not gains: integers have no order of summation.
        hits = Collective().sum(hits)[1 : _CUTOFF + 1]
        return float((hits / torch.arange(2.0, _CUTOFF + 2, dtype=torch.float64).log2()).sum())


def _hash(user_ids: Tensor) -> Tensor:
    # Ids of 31 bits and more would leave int64 in the product.
    return (user_ids % (1 << 30)) * _HASH_FACTOR % _HASH_RANGE


def _of_users(batch: EvaluationBatch, kept: Tensor) -> EvaluationBatch:
    events = batch.batch
    here = kept[events.user_indices]
    seen = kept.repeat_interleave(batch.seen_offsets.diff())
    some = JaggedBatch(
        events.item_ids[here],
        events.behaviours[here],
        events.timestamps[here],
        _offsets(events.lengths[kept]),
        events.user_ids[kept],
    )
    return EvaluationBatch(
        some, batch.seen_item_ids[seen], _offsets(batch.seen_offsets.diff()[kept]), batch.target_repeats[kept]
    )


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
