"""``Recommender``: a trained model that answers with raw ids."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from unigrf_dist.data import Dataset
from unigrf_dist.data.histories import NOBODY, UserHistories
from unigrf_dist.data.sequences import IntArray, Sequences
from unigrf_dist.data.split import SplitRule
from unigrf_dist.errors import UserError
from unigrf_dist.ranks.collective import Collective
from unigrf_dist.serve.approximate import Search, approximate_catalogue
from unigrf_dist.serve.lists import Lists
from unigrf_dist.serve.loaded import LoadedRun
from unigrf_dist.serve.popular import popular_lists
from unigrf_dist.serve.stages import ListOptions, TwoStages
from unigrf_dist.serve.vocabulary import Event, RawId, Vocabulary, raw_id

Seen = Literal["exclude", "keep"]


class Entry(NamedTuple):
    """One recommended item.

    Attributes:
        item: raw item id.
        score: what the list is ordered by.
        log_retrieval: natural logarithm of the retrieval probability, over all items that could be recommended.
        probabilities: probability of each ranking task, by the task's rule; empty where the model was not asked.
        title: what the item is called; None where the data set does not say.
    """

    item: RawId
    score: float
    log_retrieval: float
    probabilities: dict[str, float]
    title: str | None = None


@dataclass(frozen=True)
class Recommendations:
    """The answer to one request.

    Attributes:
        entries: best first; fewer than asked for where no more items may appear.
        source: ``model``, or ``popularity`` for a user without any known event.
        num_unknown_items: events of the given history left out because the catalogue does not have their item.
    """

    entries: list[Entry]
    source: Literal["model", "popularity"]
    num_unknown_items: int = 0

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class Recommender:
    """Recommendations of a trained run, on the CPU of this process.

    Args:
        run: the run's folder.
        checkpoint: ``best``, ``latest`` or a checkpoint's name.
        overrides: ``key=value`` of the configuration, such as where the data set lies now.
        kept_bytes: memory for histories that `lists` keeps between calls, with the names it is given; 0 for none.
        ranks: those that share the item table, all of which then call `lists`; None for this process alone.

    Raises:
        UserError: there is no such run, checkpoint or data set, they do not belong together, or a file is damaged.
    """

    def __init__(
        self,
        run: Path | str,
        *,
        checkpoint: str = "best",
        overrides: Sequence[str] = (),
        kept_bytes: int = 0,
        ranks: Collective | None = None,
    ) -> None:
        # What reads the folder of a run comes from training's packages, which an export does without.
        from unigrf_dist.serve.loading import load_run

        loaded = load_run(Path(run), checkpoint=checkpoint, overrides=overrides, ranks=ranks)
        self._answer_from(loaded, kept_bytes, "exact")

    @classmethod
    def of(cls, run: LoadedRun, *, kept_bytes: int = 0, search: Search = "auto") -> Recommender:
        """Answers from a run or export that is loaded already; ``search`` as in ``from_pretrained``."""
        recommender = cls.__new__(cls)
        recommender._answer_from(run, kept_bytes, search)
        return recommender

    def _answer_from(self, run: LoadedRun, kept_bytes: int, search: Search) -> None:
        self.run, self.tasks = run, run.tasks
        approximate = approximate_catalogue(run, search)
        self.stages = TwoStages(run, kept_bytes=kept_bytes, approximate=approximate)

    @cached_property
    def users(self) -> UserHistories:
        """Histories of the data set's users.

        Raises:
            UserError: this is an export, which has no users.
        """
        return UserHistories(self._dataset)

    @property
    def split(self) -> SplitRule:
        """Which events of the data set's users the run held out.

        Raises:
            UserError: this is an export, which has no users.
        """
        return self._dataset.split

    @property
    def _dataset(self) -> Dataset:
        if self.run.dataset is None:
            raise UserError(
                "recommend: an export knows no users; give history, or recommend from the run's folder"
            )
        return self.run.dataset

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Raw ids of the items, and the behaviours."""
        return Vocabulary(self.run.items, self.run.behaviours)

    def recommend(
        self,
        user: RawId | None = None,
        history: Sequence[Event] | None = None,
        *,
        at: int | None = None,
        k: int = 10,
        candidates: int = 100,
        seen: Seen = "exclude",
        allow: Iterable[RawId] | None = None,
        deny: Iterable[RawId] | None = None,
        blend: Mapping[str, float] | None = None,
    ) -> Recommendations:
        """One list, for a user of the data set or for a history that the request brings.

        The list is ordered by ``log p_retrieval + sum of lambda_t log p_t`` over the ranking tasks ``t``. A user
        or history without any event that the model knows gets the most popular items, and the answer says so.

        Args:
            user: raw id of a user, whose whole history in the data set counts.
            history: instead of it events ``(raw item, {behaviour's name: value}, seconds)``, in any order.
            at: the moment of the request in seconds; that of the last event if left out.
            k: entries wanted.
            candidates: items that retrieval hands to ranking, at least ``k``.
            seen: whether items of the history may come again.
            allow: only these items may appear; ids that the catalogue does not have count for nothing.
            deny: these items may not.
            blend: lambda of each ranking task, by its rule, 0 for tasks that are not named. Left out, it is what
                was chosen on validation and is kept with the run or export, else 0.

        Raises:
            UserError: an argument contradicts another, the data set or the model.
        """
        if (user is None) == (history is None):
            raise UserError("recommend: give either user or history")
        options = self.options(k=k, candidates=candidates, seen=seen, allow=allow, deny=deny, blend=blend)
        num_unknown = 0
        if history is not None:
            known = self.vocabulary.history(history)
            sequences, num_unknown = known.sequences, known.num_unknown
        else:
            sequences = self.histories([user])  # type: ignore[list-item]
        lists = self.lists(sequences, None if at is None else np.array([at]), options)
        source: Literal["model", "popularity"] = "model" if bool(lists.from_model[0]) else "popularity"
        return Recommendations(self.entries(lists, 0), source, num_unknown)

    def histories(self, raw_users: Sequence[RawId]) -> Sequences:
        """Histories of users by raw id, in that order; empty ones of users that the data set does not have."""
        return self.histories_of(self.users.find(self.raw_user_ids(raw_users)))

    def raw_user_ids(self, raw_users: Sequence[RawId]) -> pa.Array:
        """Raw ids of users, in the type of the data set.

        Raises:
            UserError: an id is of another type.
        """
        kind = self._dataset.manifest.raw_user_type
        ids = [raw_id(raw, kind, "user") for raw in raw_users]
        return pa.array(ids, pa.int64() if kind == "int64" else pa.string())

    def histories_of(self, users: IntArray) -> Sequences:
        """Histories of users by dense id, in that order; empty ones where the id is ``NOBODY``."""
        known = users != NOBODY
        if known.all() and len(users):
            return self.users.read(users)
        nobody = _no_events(len(users), len(self.run.config.model.user_features))
        if not known.any():
            return nobody
        read = self.users.read(users[known])
        lengths = np.zeros(len(users), np.int64)
        lengths[known] = read.lengths
        offsets = np.concatenate([[0], lengths.cumsum()])
        codes = nobody.user_features
        if codes is not None and read.user_features is not None:
            codes[known] = read.user_features
        return Sequences(users, offsets, read.item_ids, read.behaviours, read.timestamps, codes)

    def options(
        self,
        *,
        k: int,
        candidates: int,
        seen: Seen = "exclude",
        allow: Iterable[RawId] | None = None,
        deny: Iterable[RawId] | None = None,
        blend: Mapping[str, float] | None = None,
    ) -> ListOptions:
        """What `recommend` was asked for, checked, in dense ids.

        Raises:
            UserError: as `recommend`.
        """
        if k < 1:
            raise UserError(f"k = {k}: a list has 1 entry or more")
        if candidates < k:
            raise UserError(f"candidates = {candidates} is below k = {k}: ranking orders what retrieval hands it")
        if seen not in ("exclude", "keep"):
            raise UserError(f"seen = {seen!r}: allowed are exclude and keep")
        return ListOptions(
            k,
            candidates,
            seen == "exclude",
            self._allowed(allow, deny),
            self._blend(self.run.blend if blend is None else blend),
        )

    def lists(
        self,
        histories: Sequences,
        at: IntArray | None,
        options: ListOptions,
        names: Sequence[Hashable | None] | None = None,
    ) -> Lists:
        """A list for each history; who shares the call changes nothing of it.

        Args:
            histories: all known events of ``B`` users, possibly none.
            at: ``[B]`` int64, moments of the requests in seconds; those of the users' last events if None.
            options: what kind of lists.
            names: ``B`` names under which histories are kept between calls; None for those that are not.

        Raises:
            UserError: a request comes before the last event of its history.
        """
        known = np.flatnonzero(histories.lengths)
        if len(known) == histories.num_users:
            return self._model_lists(histories, at, options, names)
        fallback = popular_lists(
            self.run.items.training_counts,
            histories.num_users - len(known),
            options.k,
            len(self.tasks),
            options.allowed,
        )
        # Without any history, too: where ranks share the tables, the others may have some.
        keep = None if names is None else [names[user] for user in known.tolist()]
        lists = self._model_lists(histories.take(known), None if at is None else at[known], options, keep)
        others = np.flatnonzero(histories.lengths == 0)
        order = np.argsort(np.concatenate([known, others]))
        return Lists.joined([lists, fallback]).take(torch.from_numpy(order))

    def _model_lists(
        self,
        histories: Sequences,
        at: IntArray | None,
        options: ListOptions,
        names: Sequence[Hashable | None] | None,
    ) -> Lists:
        """`lists` of users who all have events."""
        with_events = self._with_features(histories)
        last = with_events.timestamps[with_events.offsets[1:] - 1]
        asked = last if at is None else at.astype(np.int64)
        if (early := np.flatnonzero(asked < last)).size:
            raise UserError(
                f"at = {asked[early[0]]} lies before the last event of its history, at {last[early[0]]}; "
                "a request comes after what it knows"
            )
        return self.stages.lists(with_events, asked, options, names)

    def score(
        self,
        history: Sequences,
        at: IntArray,
        items: Sequence[RawId],
        blend: Tensor,
        name: Hashable | None = None,
    ) -> list[Entry | None]:
        """Both stages' scores of given items, whether or not the user has seen them.

        Args:
            history: all known events of one user, one or more.
            at: ``[1]`` int64, moment of the request in seconds.
            items: raw ids.
            blend: ``[A]`` float64, lambda of each ranking task.
            name: under which the history is kept between calls; None for one that is not.

        Returns:
            An entry for each item, in that order, with its retrieval probability among all items of the catalogue;
            None for items that the catalogue does not have.

        Raises:
            UserError: an id is of another type than the catalogue's.
        """
        places = [self.vocabulary.rows([item])[0] for item in items]
        known = torch.from_numpy(np.concatenate([*places, np.zeros(0, np.int64)]))
        log_retrieval, logits = self.stages.scores(self._with_features(history), at, known, name)
        scores = log_retrieval + logsigmoid(logits.double()) @ blend
        rows = iter(zip(scores.tolist(), log_retrieval.tolist(), logits.sigmoid().tolist(), strict=True))
        entries: list[Entry | None] = []
        for place in places:
            if not len(place):
                entries.append(None)
                continue
            score, log_p, values = next(rows)
            entries.append(self._entry(int(place[0]), score, log_p, dict(zip(self.tasks, values, strict=True))))
        return entries

    def entries(self, lists: Lists, row: int) -> list[Entry]:
        """The list of one user, with raw ids."""
        entries = []
        for item, score, log_retrieval, values in zip(
            lists.items[row].tolist(),
            lists.scores[row].tolist(),
            lists.log_retrieval[row].tolist(),
            lists.probabilities[row].tolist(),
            strict=True,
        ):
            if item >= 0:
                asked = bool(lists.from_model[row])
                named = dict(zip(self.tasks, values, strict=True)) if asked else {}
                entries.append(self._entry(item, score, log_retrieval, named))
        return entries

    def _entry(self, row: int, score: float, log_retrieval: float, probabilities: dict[str, float]) -> Entry:
        raw, title = self.vocabulary.raw_items[row], self.vocabulary.title(row)
        return Entry(raw, score, log_retrieval, probabilities, title)

    def _with_features(self, histories: Sequences) -> Sequences:
        """Histories that came with a request say nothing of the user: code 0 stands for that."""
        number = len(self.run.config.model.user_features)
        if not number or histories.user_features is not None:
            return histories
        codes = np.zeros((histories.num_users, number), np.int32)
        return Sequences(
            histories.user_ids,
            histories.offsets,
            histories.item_ids,
            histories.behaviours,
            histories.timestamps,
            codes,
        )

    def _allowed(self, allow: Iterable[RawId] | None, deny: Iterable[RawId] | None) -> Tensor | None:
        live = self.run.tables.live
        if allow is None and deny is None:
            return live
        allowed = torch.full((len(self.run.items),), allow is None)
        if allow is not None:
            allowed[torch.from_numpy(self.vocabulary.rows(allow)[0])] = True
        if deny is not None:
            allowed[torch.from_numpy(self.vocabulary.rows(deny)[0])] = False
        if live is not None:
            allowed &= live
        if not bool(allowed.any()):
            raise UserError("allow and deny leave no item of the catalogue; allow one of its raw ids")
        return allowed

    def _blend(self, blend: Mapping[str, float]) -> Tensor:
        for task, value in blend.items():
            if task not in self.tasks:
                raise UserError(
                    f"blend names {task!r}, but the run's ranking tasks are: {', '.join(self.tasks) or 'none'}"
                )
            if not math.isfinite(value):
                raise UserError(f"blend of {task!r} is {value}; give a finite number, such as 0.25")
        return torch.tensor([float(blend.get(task, 0.0)) for task in self.tasks], dtype=torch.float64)


def _no_events(num_users: int, num_features: int) -> Sequences:
    none = np.zeros(0, np.int64)
    codes = np.zeros((num_users, num_features), np.int32) if num_features else None
    offsets = np.zeros(num_users + 1, np.int64)
    return Sequences(np.full(num_users, NOBODY), offsets, none, none.astype(np.int16), none, codes)
