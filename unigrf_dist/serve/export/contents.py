"""What an export says of the model in ``config.json``, and which tensors it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from unigrf_dist import __version__
from unigrf_dist.config import Config
from unigrf_dist.data.feature_files import ItemCodes
from unigrf_dist.serve.dense_tables import DenseTables
from unigrf_dist.serve.export.weights import dequantized, quantized
from unigrf_dist.serve.loaded import LoadedRun

LIVE = "tables.live"
"""Name of ``[num_items]`` bool, the items that may be listed; there under dynamic ids alone."""
Quantization = Literal["none", "int8"]


class ExportConfig(BaseModel):
    """Content of ``config.json``.

    Attributes:
        unigrf_dist: version of the package that wrote it.
        checkpoint: name of the run's checkpoint.
        num_items: rows of the item table.
        behaviours: named values of every behaviour code.
        blend: lambda of ranking tasks, by rule.
        quantize: how the tables are stored.
        item_features: number of codes of each item feature.
        user_features: number of codes of each user feature, in the order of the model.
        config: configuration of the run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    unigrf_dist: str = __version__
    checkpoint: str
    num_items: int
    behaviours: list[dict[str, float]]
    blend: dict[str, float]
    quantize: Quantization
    item_features: dict[str, int]
    user_features: dict[str, int]
    config: Config


def export_config(run: LoadedRun, blend: Mapping[str, float], quantize: Quantization) -> ExportConfig:
    """What ``config.json`` says of a run's checkpoint."""
    assert run.dataset is not None, "an export is made from a run's folder"
    features = {owner: run.dataset.manifest.features_of(owner) for owner in ("item", "user")}
    data = run.config.data.model_copy(update={"path": run.dataset.path.resolve().name})
    return ExportConfig(
        checkpoint=run.checkpoint,
        num_items=len(run.items),
        behaviours=run.behaviours,
        blend=dict(blend),
        quantize=quantize,
        item_features={name: features["item"][name].cardinality for name in run.config.model.item_features},
        user_features={name: features["user"][name].cardinality for name in run.config.model.user_features},
        config=run.config.model_copy(update={"data": data}),
    )


def export_tensors(run: LoadedRun, quantize: Quantization) -> dict[str, Tensor]:
    """All tensors of a run's checkpoint, by their names in the export."""
    assert run.dataset is not None, "an export is made from a run's folder"
    tensors = {f"model.{name}": parameter.detach() for name, parameter in run.model.named_parameters()}
    for name, table in run.tables.weights.items():
        if quantize == "int8":
            tensors[f"tables.{name}"], tensors[f"tables.{name}.scale"] = quantized(table)
        else:
            tensors[f"tables.{name}"] = table
    if run.tables.live is not None:
        tensors[LIVE] = run.tables.live
    for name in run.config.model.item_features:
        codes = run.dataset.item_feature(name)
        tensors[f"item_features.{name}.values"] = codes.values
        if codes.offsets is not None:
            tensors[f"item_features.{name}.offsets"] = codes.offsets
    return tensors


def stored_table(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """``[rows, D]`` fp32 table of an export."""
    table = tensors[f"tables.{name}"]
    return dequantized(table, tensors[f"tables.{name}.scale"]) if table.dtype == torch.int8 else table


def stored_tables(run: LoadedRun, tensors: Mapping[str, Tensor]) -> DenseTables:
    """The tables of a run as an export of these tensors holds them."""
    weights = {name: stored_table(tensors, name) for name in run.tables.weights}
    return DenseTables(weights, run.tables.features, tensors.get(LIVE))


def stored_codes(tensors: Mapping[str, Tensor], name: str, cardinality: int) -> ItemCodes:
    """Codes of all items under an item feature of an export."""
    values, offsets = tensors[f"item_features.{name}.values"], tensors.get(f"item_features.{name}.offsets")
    return ItemCodes(values, offsets, cardinality)


def config_json(config: ExportConfig) -> dict[str, Any]:
    """``config`` for ``config.json``."""
    return config.model_dump(mode="json")
