"""From a configuration and a data set to the parts of a run, on every rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from unigrf_dist.config import Config
from unigrf_dist.data import Dataset, open_dataset
from unigrf_dist.evaluate.engine_scorer import EngineScorer
from unigrf_dist.model.tables import ItemTable
from unigrf_dist.model.unigrf import UniGRF
from unigrf_dist.phases import Phases
from unigrf_dist.ranks.announce import Announce, announce_nothing
from unigrf_dist.ranks.progress import reached
from unigrf_dist.ranks.runtime import Runtime
from unigrf_dist.train.checks import refuse_absent_features, retrieval_targets, task_labels
from unigrf_dist.train.engine import build_engine
from unigrf_dist.train.feature_codes import side_features
from unigrf_dist.train.seen_items import with_seen_rule


@dataclass(frozen=True)
class Parts:
    """The model and the data, ready for training or evaluation."""

    config: Config
    runtime: Runtime
    dataset: Dataset
    engine: Any
    table: ItemTable
    scorer: EngineScorer
    phases: Phases


def build_parts(
    config: Config, runtime: Runtime, phases: Phases | None = None, *, announce: Announce = announce_nothing
) -> Parts:
    """Open the data and build table, dense model and engine; collective.

    Args:
        config: configuration of the run.
        runtime: this rank.
        phases: names the parts of a step; a benchmark passes a timed one.
        announce: told what is opened and built.

    Raises:
        UserError: the data does not fit the configuration.
    """
    reached("opening the data")
    dataset = open_dataset(config.data.path)
    labels, targets = task_labels(config, dataset), retrieval_targets(config, dataset)
    refuse_absent_features(config, dataset)
    config = with_seen_rule(config, dataset.manifest)
    manifest = dataset.manifest
    announce(
        f"data {dataset.path}: {manifest.num_users:,} users, {manifest.num_events:,} events, "
        f"{manifest.num_items:,} items"
    )
    dataset = dataset.with_user_features(config.model.user_features)
    announce(f"building the item table and the model for {runtime.world_size} rank(s) on {runtime.device.type}")
    table = ItemTable(
        config.tables,
        num_items=dataset.num_items,
        width=config.model.width,
        device=runtime.device,
        seed=config.train.seed,
        features=side_features(config, dataset, runtime.device),
    )
    reached("building the model")
    torch.manual_seed(config.train.seed)
    phases = phases or Phases()
    model = UniGRF(config, labels, num_items=dataset.num_items, phases=phases, targets=targets)
    engine = build_engine(config, model, num_users=dataset.num_users)
    reached("ready to train or evaluate")
    scorer = EngineScorer(config, engine, table, labels)
    return Parts(config, runtime, dataset, engine, table, scorer, phases)
