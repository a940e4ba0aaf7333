"""A run's folder as one process needs it: configuration, data set, dense model and whole tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from unigrf_dist.config import load_config
from unigrf_dist.data import configured_dataset
from unigrf_dist.data.vocabularies import Vocabularies
from unigrf_dist.errors import UserError
from unigrf_dist.model.side_features import SideFeatures
from unigrf_dist.model.unigrf import UniGRF
from unigrf_dist.phases import Phases
from unigrf_dist.ranks.collective import Collective
from unigrf_dist.serve.blend_file import chosen_blend
from unigrf_dist.serve.dense_tables import ITEM, DenseTables, empty_tables
from unigrf_dist.serve.loaded import ItemDictionary, LoadedRun
from unigrf_dist.serve.shared_tables import SharedTables, rows_of_rank
from unigrf_dist.train.checkpoints.blocks import Block, DamagedError, StoredFile, as_average, read_blocks, verify
from unigrf_dist.train.checkpoints.folders import CheckpointFolders
from unigrf_dist.train.checkpoints.index import read_index, refuse_other_model
from unigrf_dist.train.checks import refuse_absent_features, retrieval_targets, task_labels
from unigrf_dist.train.feature_codes import side_features
from unigrf_dist.train.run_folder import CONFIG_FILE, run_config

_CPU = torch.device("cpu")


def load_run(
    run: Path, *, checkpoint: str = "best", overrides: Sequence[str] = (), ranks: Collective | None = None
) -> LoadedRun:
    """Read a checkpoint of a run, whatever ranks and sharding wrote it; every file is compared with its hash.

    Args:
        run: the run's folder.
        checkpoint: ``best``, ``latest`` or a checkpoint's name.
        overrides: ``key=value`` of the configuration.
        ranks: those that deal the item table among them; None for a whole one.

    Raises:
        UserError: there is no such run, checkpoint or data set, they do not belong together, or a file is damaged.
    """
    run_config(run)  # its error names the run, not a file that is missing
    config = load_config(run / CONFIG_FILE, overrides)
    # The run may name Triton, which has no CPU.
    config = config.model_copy(update={"kernel": "torch"})
    dataset = configured_dataset(config.data)
    labels, targets = task_labels(config, dataset), retrieval_targets(config, dataset)
    refuse_absent_features(config, dataset)
    dataset = dataset.with_user_features(config.model.user_features)
    model = UniGRF(config, labels, num_items=dataset.num_items, phases=Phases(), targets=targets).eval()
    features = side_features(config, dataset, _CPU)
    place = CheckpointFolders(run).resolve(checkpoint)
    signature = {
        "items": [dataset.num_items, config.model.width],
        "capacity": config.tables.ids.capacity,
        "features": features.cardinalities,
        "dense": {name: list(parameter.shape) for name, parameter in model.named_parameters()},
    }
    try:
        files, stored = read_index(place)
        # A new item has no vector yet that could be compared with others.
        refuse_other_model(place, stored["model"], signature, Vocabularies.of(dataset), may_grow=False)
        verify(place, files)
        parameters = [
            Block(f"dense/{name}/weight", 0, 0, parameter.numel(), parameter.data.view(1, -1))
            for name, parameter in model.named_parameters()
        ]
        _read_weights(place, files, parameters)
        own = rows_of_rank(dataset.num_items, *((0, 1) if ranks is None else (ranks.rank, ranks.world_size)))
        if config.tables.ids.capacity is None:
            tables = _tables(place, files, features, own, config.model.width)
        else:
            rows = range(config.tables.ids.capacity + 1)
            by_row = _tables(place, files, features, rows, config.model.width)
            tables = _by_item(by_row, place, files, dataset.num_items, own)
    except (DamagedError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{place}: the checkpoint is damaged: {error}; take another one") from error
    if ranks is not None:
        tables = SharedTables(
            tables.weights, tables.features, tables.live, num_items=dataset.num_items, ranks=ranks
        )
    items = ItemDictionary(dataset.raw_item_ids(), dataset.training_counts(), dataset.item_titles())
    behaviours, blend = dataset.manifest.behaviours, chosen_blend(run, place.name)
    return LoadedRun(config, items, behaviours, model, tables, place.name, blend=blend, dataset=dataset)


def _tables(
    place: Path, files: Sequence[StoredFile], features: SideFeatures, rows: range, width: int
) -> DenseTables:
    """The stored tables, of the item table some rows."""
    tables = empty_tables(features, len(rows), width)
    first = {name: rows.start if name == ITEM else 0 for name in tables.weights}
    blocks = [Block(f"table/{name}/weight", first[name], 0, width, w) for name, w in tables.weights.items()]
    _read_weights(place, files, blocks)
    return tables


def _read_weights(place: Path, files: Sequence[StoredFile], blocks: list[Block]) -> None:
    """Fill the weights ``blocks``; of a run with averaged weights, with these."""
    read_blocks(place, files, as_average(blocks, {block.name for file in files for block in file.blocks}))


def _by_item(
    tables: DenseTables, place: Path, files: Sequence[StoredFile], num_items: int, own: range
) -> DenseTables:
    """Tables with a vector for each item of ``own``, from the rows of dynamic ids."""
    row_of_item = torch.zeros(num_items, 1, dtype=torch.int64)
    read_blocks(place, files, [Block("ids/row", 0, 0, 1, row_of_item)])
    weights = {**tables.weights, ITEM: tables.items[row_of_item[own.start : own.stop, 0]]}
    return DenseTables(weights, tables.features, row_of_item[:, 0] < len(tables.items) - 1)
