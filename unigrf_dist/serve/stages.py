"""Both stages over one reading of a history.

Shapes: ``B`` users, ``C`` candidates, ``A`` ranking tasks, ``V`` items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.data.sequences import IntArray, Sequences
from unigrf_dist.evaluate.catalogue import ShardedCatalogue
from unigrf_dist.evaluate.top_k import NOTHING
from unigrf_dist.model.request_pass import KeptHistory, rank_candidates, read_histories
from unigrf_dist.model.table_shard import TableShard
from unigrf_dist.serve.lists import Lists, blended
from unigrf_dist.serve.loaded import LoadedRun


@dataclass(frozen=True)
class ListOptions:
    """What kind of lists are wanted.

    Attributes:
        k: entries of a list.
        candidates: items that retrieval hands to ranking, at least ``k``.
        exclude_seen: leave out every item of the user's whole history.
        allowed: ``[V]`` bool, items that may appear; None for all.
        blend: ``[A]`` float64, lambda of each ranking task.
    """

    k: int
    candidates: int
    exclude_seen: bool
    allowed: Tensor | None
    blend: Tensor


class TwoStages:
    """The model and its catalogue; read only, so that lists of a user never depend on who was asked for before.

    Args:
        run: the loaded run.
    """

    def __init__(self, run: LoadedRun) -> None:
        self.model, self.tables = run.model, run.tables
        self._max_events = run.config.data.max_events
        retrieval = run.config.objective.retrieval
        self._temperature = retrieval.temperature
        self._catalogue = ShardedCatalogue(
            [TableShard(0, 0, run.tables.items)],
            num_items=len(run.items),
            dim=run.config.model.width,
            normalize=retrieval.normalize,
        )

    def lists(self, histories: Sequences, asked: IntArray, options: ListOptions) -> Lists:
        """A list for each user.

        Args:
            histories: all that is known of the users' events, one or more of each user; the model sees the latest.
            asked: ``[B]`` int64, seconds: the moment of each request.
            options: what kind of lists.
        """
        lengths = histories.lengths
        everyone = np.arange(histories.num_users)
        windows = histories.cut(everyone, np.maximum(lengths - self._max_events, 0), lengths)
        # User by user: a row of a matrix product depends in its last bits on how many rows there are, and a list
        # must not depend on who else is asked for. The search is exact, so that it takes all users at once.
        batches = [windows.take(slice(user, user + 1)).to_batch() for user in everyone]
        moments = torch.from_numpy(asked).split(1)
        kept = [
            read_histories(self.model, self.tables.events(batch), batch, moment)
            for batch, moment in zip(batches, moments, strict=True)
        ]
        seen = (histories.item_ids, histories.offsets)
        if not options.exclude_seen:
            seen = (histories.item_ids[:0], np.zeros_like(histories.offsets))
        found = self._catalogue.search(
            torch.cat([each.queries for each in kept]),
            options.candidates,
            *map(torch.from_numpy, seen),
            temperature=self._temperature,
            allowed=options.allowed,
        )
        users = zip(kept, batches, found.ids.split(1), moments, strict=True)
        logits = torch.cat([self._logits(*user) for user in users])
        return blended(found, logits, options.blend, options.k)

    def _logits(self, kept: KeptHistory, batch: JaggedBatch, ids: Tensor, asked: Tensor) -> Tensor:
        """``[B, C, A]`` ranking logits of candidates ``[B, C]``; arbitrary where there is no item."""
        vectors = self.tables.candidates(ids.masked_fill(ids == NOTHING, 0), batch)
        return rank_candidates(self.model, kept, vectors, asked)
