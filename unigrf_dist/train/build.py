"""From a configuration and a data set to the parts of a run, on every rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from unigrf_dist.config import Config
from unigrf_dist.data import Dataset, open_dataset
from unigrf_dist.model.scorer import ModelScorer
from unigrf_dist.model.tables import ItemTable
from unigrf_dist.model.unigrf import UniGRF
from unigrf_dist.phases import Phases
from unigrf_dist.train.engine import build_engine
from unigrf_dist.train.fit import task_labels
from unigrf_dist.train.runtime import Runtime


@dataclass(frozen=True)
class Parts:
    """The model and the data, ready for training or evaluation."""

    config: Config
    runtime: Runtime
    dataset: Dataset
    engine: Any
    table: ItemTable
    scorer: ModelScorer
    phases: Phases


def build_parts(config: Config, runtime: Runtime, phases: Phases | None = None) -> Parts:
    """Open the data and build table, dense model and engine; collective.

    Args:
        config: of the run.
        runtime: this rank.
        phases: names the parts of a step; a benchmark passes a timed one.

    Raises:
        UserError: the data does not fit the configuration.
    """
    dataset = open_dataset(config.data.path)
    labels = task_labels(config, dataset)
    table = ItemTable(
        config.tables,
        num_items=dataset.num_items,
        width=config.model.width,
        device=runtime.device,
        seed=config.train.seed,
    )
    torch.manual_seed(config.train.seed)
    phases = phases or Phases()
    model = UniGRF(config, labels, num_items=dataset.num_items, phases=phases)
    engine = build_engine(config, model, num_users=dataset.num_users)
    scorer = ModelScorer(config, engine, table, labels)
    return Parts(config, runtime, dataset, engine, table, scorer, phases)
