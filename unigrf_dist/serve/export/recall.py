"""How much of an exact search the approximate one of an export finds."""

from __future__ import annotations

import numpy as np
import torch

from unigrf_dist.evaluate.top_k import NOTHING
from unigrf_dist.serve.approximate import ApproximateCatalogue
from unigrf_dist.serve.loaded import LoadedRun
from unigrf_dist.serve.recommender import Recommender

_USERS = 1000
_TOGETHER = 50
_LENGTHS = (10, 100)


def recall(run: LoadedRun, approximate: ApproximateCatalogue) -> dict[int, float]:
    """By ``k``, the mean share of the exact ``k`` best items that is among the ``k`` that were found.

    Both lists leave out what the user has seen. Asked for users of the data set after their last event, a
    thousand at most, spread evenly.

    Args:
        run: the run with the tables that the export holds, and its data set.
        approximate: the search to be judged.
    """
    recommender = Recommender.of(run, search="exact")
    num_users = len(recommender.users.raw_ids())
    users = np.unique(np.linspace(0, num_users - 1, min(num_users, _USERS)).astype(np.int64))
    shares: dict[int, list[torch.Tensor]] = {k: [] for k in _LENGTHS}
    for first in range(0, len(users), _TOGETHER):
        histories = recommender.histories_of(users[first : first + _TOGETHER])
        queries = recommender.stages.queries(histories, histories.timestamps[histories.offsets[1:] - 1])
        seen = torch.from_numpy(histories.item_ids), torch.from_numpy(histories.offsets)
        for k in _LENGTHS:
            exact, found = (
                search(queries, k, *seen, temperature=1.0, allowed=run.tables.live).ids
                for search in (recommender.stages.exact.search, approximate.search)
            )
            common = (exact[:, :, None] == found[:, None, :]) & (exact != NOTHING)[:, :, None]
            shares[k].append(common.sum((1, 2)) / (exact != NOTHING).sum(1))
    # A user who has seen every item says nothing.
    return {k: float(torch.cat(parts).nanmean()) for k, parts in shares.items()}
