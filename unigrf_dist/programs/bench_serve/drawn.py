"""Exports with drawn weights, and drawn histories: a request costs the same whatever a model has learnt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from unigrf_dist.config import Config
from unigrf_dist.config.task_rule import label_table
from unigrf_dist.data.sequences import Sequences
from unigrf_dist.errors import UserError
from unigrf_dist.model.unigrf import UniGRF
from unigrf_dist.phases import Phases
from unigrf_dist.serve.dense_tables import ITEM
from unigrf_dist.serve.export.bundle import CONFIG_FILE, ITEMS_FILE, appear
from unigrf_dist.serve.export.contents import ExportConfig, config_json
from unigrf_dist.serve.export.weights import save_tensors
from unigrf_dist.serve.export.write import write_items
from unigrf_dist.serve.loaded import ItemDictionary

BEHAVIOURS = [{"rating": float(stars)} for stars in range(1, 6)]
FIRST_ITEM = 1
"""Raw id of the item with dense id 0; the others follow."""
_START, _SECONDS = 1_600_000_000, 3600


def write_drawn_export(folder: Path, config: Config, *, num_items: int, seed: int) -> None:
    """Write an export of a model that has learnt nothing; its behaviours are ratings of 1 to 5.

    Args:
        folder: folder of the export, which is not there yet.
        config: configuration of the model.
        num_items: items of the catalogue, with raw ids from 1 on.
        seed: seed of the weights.

    Raises:
        UserError: the configuration has side features, or a ranking task on something else than ratings.
    """
    if config.model.item_features or config.model.user_features:
        raise UserError("bench serve: draws no side features; leave model.item_features and user_features out")
    rules = [task.rule for task in config.objective.ranking]
    try:
        labels = label_table(rules, BEHAVIOURS)
    except ValueError as error:
        raise UserError(f"bench serve: draws ratings of 1 to 5 alone; objective.ranking: {error}") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = UniGRF(config, labels, num_items=num_items, phases=Phases())
        tensors = {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}
        tensors[f"tables.{ITEM}"] = torch.randn(num_items, config.model.width)
    stored = ExportConfig(
        checkpoint=f"drawn-{seed}",
        num_items=num_items,
        behaviours=BEHAVIOURS,
        blend=dict.fromkeys(rules, 0.25),
        quantize="none",
        item_features={},
        user_features={},
        config=config,
    )
    counts = torch.arange(num_items, 0, -1)
    items = ItemDictionary(pa.array(np.arange(num_items) + FIRST_ITEM), counts, None)

    def write(place: Path) -> None:
        (place / CONFIG_FILE).write_text(json.dumps(config_json(stored)), encoding="utf-8")
        save_tensors(place, tensors)
        write_items(place / ITEMS_FILE, items)

    appear(folder, write)


def drawn_histories(num_users: int, num_events: int, num_items: int, *, seed: int) -> Sequences:
    """Histories of one length, an hour between events in the mean."""
    random, total = np.random.default_rng(seed), num_users * num_events
    gaps = random.exponential(_SECONDS, (num_users, num_events)).astype(np.int64)
    return Sequences(
        np.arange(num_users),
        num_events * np.arange(num_users + 1),
        random.integers(num_items, size=total),
        random.integers(len(BEHAVIOURS), size=total).astype(np.int16),
        (_START + gaps.cumsum(1)).reshape(-1),
    )
