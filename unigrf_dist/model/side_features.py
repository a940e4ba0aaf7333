"""Side features: what of an item and of a user, besides their ids, enters the token of an event's item.

The token of an item is its own vector plus, for each item feature, the mean of the vectors of the item's values,
plus, for each user feature, the vector of the user's value. Features enter tokens alone: the softmax and the
catalogue go on comparing hidden states with the rows of the item table, which each rank has at hand for the items
it holds.

Every feature is a table of its own in the TorchRec collection of the item table. Its rows start at zero, so that
training starts from the model without features.

Shapes: ``N`` item tokens (of events or candidates), ``B`` users, ``V`` items, ``M`` most values of an item, ``D``
width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.data.feature_files import ItemCodes
from unigrf_dist.data.manifest import Owner

# A table of at most so many rows is looked up whole: they are fewer than a batch's codes, and how many they are is
# known without a look at the batch. Of larger tables the distinct rows are looked up. Size alone decides, so that
# all ranks do the same: the fused optimizer moves the rows that were looked up, and N ranks must equal one.
_WHOLE_TABLE_ROWS = 1024


def table_name(owner: Owner, feature: str) -> str:
    """Name of a feature's table in the collection."""
    return f"{owner}_{feature}"


@dataclass(frozen=True)
class _Codes:
    """Codes of one feature, token by token.

    Attributes:
        codes: ``[N, M]`` int64.
        weights: ``[N, M]`` fp32, which sum to 1 over each token; None if ``M`` is 1.
    """

    codes: Tensor
    weights: Tensor | None


@dataclass(frozen=True)
class _Rows:
    """Which rows of a table are looked up, and the index of each code's row among them.

    Attributes:
        ids: ``[R]`` int64.
        indices: ``[N, M]`` int64.
    """

    ids: Tensor
    indices: Tensor


class SideFeatures:
    """The features that a model uses.

    Codes of items are data that every rank holds whole, on its device: 4 bytes per item and feature, and where
    items may have several values 4 bytes per item and 4 per value. Codes of users come with the batch.

    Args:
        items: codes of all items under each item feature, by name.
        users: number of codes of each user feature, by name, in the order of the batch's columns.
        device: device of the codes.
    """

    def __init__(self, items: Mapping[str, ItemCodes], users: Mapping[str, int], device: torch.device) -> None:
        self._items = {table_name("item", name): _ItemFeature(codes, device) for name, codes in items.items()}
        self._users = [table_name("user", name) for name in users]
        self.cardinalities = {table_name("item", name): codes.cardinality for name, codes in items.items()}
        self.cardinalities |= dict(zip(self._users, users.values(), strict=True))

    def __bool__(self) -> bool:
        """Whether there is any feature."""
        return bool(self.cardinalities)

    def lookup(self, batch: JaggedBatch, candidates: Tensor | None = None) -> FeatureLookup:
        """What to look up for the events of ``batch`` and, behind them, for ``[B, C]`` candidates of its users."""
        users = torch.arange(batch.num_users, device=batch.device)
        item_ids, user_of_token = batch.item_ids, batch.user_indices
        if candidates is not None:
            item_ids = torch.cat([item_ids, candidates.clamp_min(0).flatten()])
            user_of_token = torch.cat([user_of_token, users[:, None].expand_as(candidates).flatten()])
        of_items = {name: feature.codes(item_ids) for name, feature in self._items.items()}
        return FeatureLookup(of_items, self._user_codes(batch), user_of_token, self.cardinalities)

    def of_items(self, item_ids: Tensor, tables: Mapping[str, Tensor]) -> Tensor | None:
        """``[N, D]``, what the features of items, not of users, add in their tokens; None without any.

        Args:
            item_ids: ``[N]`` int64 dense item ids.
            tables: the whole table of each feature, by name.
        """
        if not self._items:
            return None
        codes = {name: feature.codes(item_ids) for name, feature in self._items.items()}
        lookup = FeatureLookup(codes, {}, item_ids, {name: self.cardinalities[name] for name in codes})
        return lookup.combine({name: tables[name][rows] for name, rows in lookup.ids.items()})

    def _user_codes(self, batch: JaggedBatch) -> dict[str, _Codes]:
        user_codes = batch.user_features
        if user_codes is None or user_codes.shape[1] != len(self._users):
            if self._users and batch.num_users:
                raise ValueError(
                    "the batch does not hold the model's user features; see Dataset.with_user_features"
                )
            user_codes = batch.user_ids.new_zeros(batch.num_users, len(self._users))
        return {name: _Codes(user_codes[:, n, None], None) for n, name in enumerate(self._users)}


class FeatureLookup:
    """A lookup of the features of ``N`` item tokens: first ``ids``, then ``combine``.

    Attributes:
        ids: rows to look up in each feature's table.
    """

    def __init__(
        self,
        items: Mapping[str, _Codes],
        users: Mapping[str, _Codes],
        user_of_token: Tensor,
        cardinalities: Mapping[str, int],
    ) -> None:
        self._items, self._users, self._user_of_token = items, users, user_of_token
        codes = {**items, **users}
        self._rows = {name: _rows(codes[name].codes, rows) for name, rows in cardinalities.items()}
        self.ids: dict[str, Tensor] = {name: rows.ids for name, rows in self._rows.items()}

    def combine(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """``[N, D]`` per token the sum over its features, from the looked-up vectors of ``ids``."""
        parts = [self._mean(name, codes, vectors) for name, codes in self._items.items()]
        if self._users:
            of_users = [self._mean(name, codes, vectors) for name, codes in self._users.items()]
            parts.append(_sum(of_users)[self._user_of_token])
        return _sum(parts)

    def _mean(self, name: str, codes: _Codes, vectors: Mapping[str, Tensor]) -> Tensor:
        indices = self._rows[name].indices
        if codes.weights is None:
            return functional.embedding(indices[:, 0], vectors[name])
        return functional.embedding_bag(indices, vectors[name], mode="sum", per_sample_weights=codes.weights)


class _ItemFeature:
    """Codes of all items under one feature."""

    def __init__(self, codes: ItemCodes, device: torch.device) -> None:
        # The spare code at the end is what lies beyond every item's last value.
        self._values = functional.pad(codes.values, (0, 1)).to(device)
        self._offsets = None if codes.offsets is None else codes.offsets.to(device)
        self._most = 1 if codes.offsets is None else max(1, int(codes.offsets.diff().max()))

    def codes(self, item_ids: Tensor) -> _Codes:
        if self._offsets is None:
            return _Codes(self._values[item_ids].long()[:, None], None)
        starts = self._offsets[item_ids].long()[:, None]
        counts = self._offsets[item_ids + 1].long()[:, None] - starts
        index = torch.arange(self._most, device=item_ids.device)
        codes = self._values[torch.where(index < counts, starts + index, self._values.numel() - 1)].long()
        # An item without values has code 0 as its only one.
        counts = counts.clamp_min(1)
        return _Codes(codes, (index < counts).float() / counts)


def _sum(parts: Sequence[Tensor]) -> Tensor:
    return reduce(torch.add, parts)


def _rows(codes: Tensor, cardinality: int) -> _Rows:
    if cardinality <= _WHOLE_TABLE_ROWS:
        return _Rows(torch.arange(cardinality, device=codes.device), codes)
    return _Rows(*codes.unique(return_inverse=True))
