"""A run's folder as one process needs it: configuration, data set, dense model and whole tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from unigrf_dist.config import load_config
from unigrf_dist.data import open_dataset
from unigrf_dist.data.vocabularies import Vocabularies
from unigrf_dist.errors import UserError
from unigrf_dist.model.unigrf import UniGRF
from unigrf_dist.phases import Phases
from unigrf_dist.serve.blend_file import chosen_blend
from unigrf_dist.serve.dense_tables import ITEM, DenseTables, empty_tables
from unigrf_dist.serve.loaded import ItemDictionary, LoadedRun
from unigrf_dist.train.checkpoints.blocks import Block, DamagedError, StoredFile, read_blocks, verify
from unigrf_dist.train.checkpoints.folders import CheckpointFolders
from unigrf_dist.train.checkpoints.index import read_index, refuse_other_model
from unigrf_dist.train.checks import refuse_absent_features, retrieval_targets, task_labels
from unigrf_dist.train.feature_codes import side_features
from unigrf_dist.train.run_folder import CONFIG_FILE, run_config

_CPU = torch.device("cpu")


def load_run(run: Path, *, checkpoint: str = "best", overrides: Sequence[str] = ()) -> LoadedRun:
    """Read a checkpoint of a run, whatever ranks and sharding wrote it; every file is compared with its hash.

    Args:
        run: the run's folder.
        checkpoint: ``best``, ``latest`` or a checkpoint's name.
        overrides: ``key=value`` of the configuration.

    Raises:
        UserError: there is no such run, checkpoint or data set, they do not belong together, or a file is damaged.
    """
    run_config(run)  # its error names the run, not a file that is missing
    config = load_config(run / CONFIG_FILE, overrides)
    # The run may name Triton, which has no CPU.
    config = config.model_copy(update={"kernel": "torch"})
    dataset = open_dataset(config.data.path)
    labels, targets = task_labels(config, dataset), retrieval_targets(config, dataset)
    refuse_absent_features(config, dataset)
    dataset = dataset.with_user_features(config.model.user_features)
    model = UniGRF(config, labels, num_items=dataset.num_items, phases=Phases(), targets=targets).eval()
    features = side_features(config, dataset, _CPU)
    place = CheckpointFolders(run).resolve(checkpoint)
    own = {
        "items": [dataset.num_items, config.model.width],
        "capacity": config.tables.ids.capacity,
        "features": features.cardinalities,
        "dense": {name: list(parameter.shape) for name, parameter in model.named_parameters()},
    }
    try:
        files, stored = read_index(place)
        # A new item has no vector yet that could be compared with others.
        refuse_other_model(place, stored["model"], own, Vocabularies.of(dataset), may_grow=False)
        verify(place, files)
        capacity = config.tables.ids.capacity
        num_rows = dataset.num_items if capacity is None else capacity + 1
        tables = empty_tables(features, num_rows, config.model.width)
        parameters = [
            Block(f"dense/{name}/weight", 0, 0, parameter.numel(), parameter.data.view(1, -1))
            for name, parameter in model.named_parameters()
        ]
        rows = [Block(f"table/{n}/weight", 0, 0, w.shape[1], w) for n, w in tables.weights.items()]
        read_blocks(place, files, [*parameters, *rows])
        if capacity is not None:
            tables = _by_item(tables, place, files, dataset.num_items)
    except (DamagedError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{place}: the checkpoint is damaged: {error}; take another one") from error
    items = ItemDictionary(dataset.raw_item_ids(), dataset.training_counts(), dataset.item_titles())
    behaviours, blend = dataset.manifest.behaviours, chosen_blend(run, place.name)
    return LoadedRun(config, items, behaviours, model, tables, place.name, blend=blend, dataset=dataset)


def _by_item(tables: DenseTables, place: Path, files: Sequence[StoredFile], num_items: int) -> DenseTables:
    """Tables with a vector for every item, from the rows of dynamic ids."""
    row_of_item = torch.zeros(num_items, 1, dtype=torch.int64)
    read_blocks(place, files, [Block("ids/row", 0, 0, 1, row_of_item)])
    weights = {**tables.weights, ITEM: tables.items[row_of_item[:, 0]]}
    return DenseTables(weights, tables.features, row_of_item[:, 0] < len(tables.items) - 1)
