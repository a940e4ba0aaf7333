"""Both stages over one reading of a history.

Shapes: ``B`` users, ``C`` candidates, ``A`` ranking tasks, ``V`` items.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.data.sequences import IntArray, Sequences
from unigrf_dist.evaluate.catalogue import Found, ShardedCatalogue
from unigrf_dist.evaluate.top_k import NOTHING
from unigrf_dist.model.request_pass import KeptHistory, rank_candidates
from unigrf_dist.serve.approximate import ApproximateCatalogue
from unigrf_dist.serve.dense_tables import DenseTables
from unigrf_dist.serve.kept import KeptHistories, fresh_read
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
    """The model and its catalogue; lists of a user never depend on who was asked for before. Thread-safe.

    Where ranks share the tables, all of them call each method, with any number of users.

    Args:
        run: the loaded run.
        kept_bytes: memory for histories that are kept between requests; 0 for none.
        approximate: searches the catalogue instead of the exact search, but where a request allows less than half
            of the items: few of them would be where it looks. None for exact search alone.
    """

    def __init__(
        self, run: LoadedRun, *, kept_bytes: int = 0, approximate: ApproximateCatalogue | None = None
    ) -> None:
        self.model, self.tables = run.model, run.tables
        self.kept = KeptHistories(run.model, run.tables, max_bytes=kept_bytes)
        self._max_events, self._width = run.config.data.max_events, run.config.model.width
        retrieval = run.config.objective.retrieval
        self._temperature = retrieval.temperature
        self._approximate = approximate
        self.exact = ShardedCatalogue(
            [run.tables.shard],
            num_items=len(run.items),
            dim=run.config.model.width,
            normalize=retrieval.normalize,
        )

    def lists(
        self,
        histories: Sequences,
        asked: IntArray,
        options: ListOptions,
        names: Sequence[Hashable | None] | None = None,
    ) -> Lists:
        """A list for each user.

        Args:
            histories: all that is known of the users' events, one or more of each user; the model sees the latest.
            asked: ``[B]`` int64, seconds: the moment of each request.
            options: what kind of lists.
            names: ``B`` names under which histories are kept between requests, None for those that are not;
                None to keep none.
        """
        return blended(*self.candidates(histories, asked, options, names), options.blend, options.k)

    # A request is hundreds of small operations, each of which costs less without autograd's bookkeeping.
    @torch.inference_mode()
    def candidates(
        self,
        histories: Sequences,
        asked: IntArray,
        options: ListOptions,
        names: Sequence[Hashable | None] | None = None,
        *,
        seen: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Found, Tensor]:
        """What retrieval finds and the logits ``[B, C, A]`` that ranking gives it; arguments as `lists`.

        Args:
            seen: items ``[S]`` that must not appear, user by user, and ``[B + 1]`` bounds of each user's; those
                of the histories, if these are to be excluded, if None.
        """
        # User by user: a row of a matrix product depends in its last bits on how many rows there are, and a list
        # must not depend on who else is asked for. The search is exact, so that it takes all users at once.
        windows = self._windows(histories)
        batches = [window.to_batch() for window in windows]
        moments = _rows(torch.from_numpy(asked))
        kept = self._read(windows, moments, names)
        if seen is None:
            excluded = histories.item_ids if options.exclude_seen else histories.item_ids[:0]
            bounds = histories.offsets if options.exclude_seen else np.zeros_like(histories.offsets)
            seen = torch.from_numpy(excluded), torch.from_numpy(bounds)
        found = self._search(options.allowed)(
            torch.cat([torch.zeros(0, self._width), *(each.queries for each in kept)]),
            options.candidates,
            *seen,
            temperature=self._temperature,
            allowed=options.allowed,
        )
        tables = self.tables.of(_items(found.ids))
        users = zip(kept, batches, _rows(found.ids), moments, strict=True)
        none = torch.zeros(0, found.ids.shape[1], self.model.num_tasks)
        return found, torch.cat([none, *(self._logits(tables, *user) for user in users)])

    @torch.inference_mode()
    def scores(
        self, history: Sequences, asked: IntArray, items: Tensor, name: Hashable | None
    ) -> tuple[Tensor, Tensor]:
        """Retrieval log probabilities ``[m]`` float64 among all items, and ranking logits ``[m, A]``.

        Args:
            history: all known events of one user, one or more.
            asked: ``[1]`` int64, seconds: the moment of the request.
            items: ``[m]`` int64 dense item ids.
            name: under which the history is kept between requests; None for one that is not.
        """
        (window,) = self._windows(history)
        moment = torch.from_numpy(asked)
        (kept,) = self._read([window], [moment], [name])
        log_p = self.exact.log_probabilities(kept.queries, items[None], temperature=self._temperature)
        return log_p[0], self._logits(self.tables.of(items), kept, window.to_batch(), items[None], moment)[0]

    def queries(self, histories: Sequences, asked: IntArray) -> Tensor:
        """``[B, D]`` fp32, what searches the catalogue; arguments as `lists`."""
        return torch.cat(
            [each.queries for each in self._read(self._windows(histories), _rows(torch.from_numpy(asked)), None)]
        )

    def _search(self, allowed: Tensor | None) -> Callable[..., Found]:
        found = self._approximate
        if found is None or (allowed is not None and 2 * int(allowed.sum()) < found.num_items):
            return self.exact.search
        return found.search

    def _windows(self, histories: Sequences) -> list[Sequences]:
        """The latest events of each user, as many as the model takes."""
        lengths = histories.lengths
        starts = np.maximum(lengths - self._max_events, 0)
        return [
            histories.cut(slice(user, user + 1), starts[user : user + 1], lengths[user : user + 1])
            for user in range(histories.num_users)
        ]

    def _read(
        self,
        windows: Sequence[Sequences],
        moments: Sequence[Tensor],
        names: Sequence[Hashable | None] | None,
    ) -> list[KeptHistory]:
        latest = [torch.zeros(0, dtype=torch.int64), *(torch.from_numpy(window.item_ids) for window in windows)]
        tables = self.tables.of(torch.cat(latest))
        return [
            fresh_read(self.model, tables, window, moment)
            if name is None
            else self.kept.read(name, window, moment)
            for name, window, moment in zip(names or [None] * len(windows), windows, moments, strict=True)
        ]

    def _logits(
        self, tables: DenseTables, kept: KeptHistory, batch: JaggedBatch, ids: Tensor, asked: Tensor
    ) -> Tensor:
        """``[B, C, A]`` ranking logits of candidates ``[B, C]``; arbitrary where there is no item."""
        return rank_candidates(self.model, kept, tables.candidates(_items(ids), batch), asked)


def _rows(tensor: Tensor) -> list[Tensor]:
    """``tensor[n : n + 1]`` for all ``n``; none of an empty tensor, of which `split` would make one."""
    return [tensor[n : n + 1] for n in range(len(tensor))]


def _items(ids: Tensor) -> Tensor:
    """``ids`` with an item where there is none."""
    return ids.masked_fill(ids == NOTHING, 0)
