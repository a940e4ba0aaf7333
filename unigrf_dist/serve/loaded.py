"""What answers requests: a trained model with its items, whether it came from a run's folder or from an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from torch import Tensor

from unigrf_dist.config import Config
from unigrf_dist.data import Dataset
from unigrf_dist.data.manifest import IdType
from unigrf_dist.model.unigrf import UniGRF
from unigrf_dist.serve.dense_tables import DenseTables


@dataclass(frozen=True)
class ItemDictionary:
    """The items of the catalogue, in the order of the tables' rows.

    Attributes:
        raw_ids: ``[V]`` int64 or string.
        training_counts: ``[V]`` int64, training events of each item.
        titles: ``[V]`` string, null where an item has none; None where the data set has no titles.
    """

    raw_ids: pa.Array
    training_counts: Tensor
    titles: pa.Array | None

    def __len__(self) -> int:
        return len(self.raw_ids)

    @property
    def raw_type(self) -> IdType:
        """Type of the raw ids."""
        return "int64" if pa.types.is_integer(self.raw_ids.type) else "string"


@dataclass(frozen=True)
class LoadedRun:
    """What a run gives; on the CPU, in fp32.

    Attributes:
        config: configuration of the run.
        items: the items whose vectors the tables hold.
        behaviours: named values of every behaviour code.
        model: the dense model, in evaluation mode.
        tables: the tables.
        checkpoint: name of the checkpoint.
        blend: lambda of ranking tasks, by rule, where a request names none.
        dataset: the data set, whose batches carry the model's user features; None for an export, which has no
            users.
    """

    config: Config
    items: ItemDictionary
    behaviours: list[dict[str, float]]
    model: UniGRF
    tables: DenseTables
    checkpoint: str
    blend: Mapping[str, float]
    dataset: Dataset | None

    @property
    def tasks(self) -> list[str]:
        """Rules of the ranking tasks, in the order of the model's logits."""
        return [task.rule for task in self.config.objective.ranking]
