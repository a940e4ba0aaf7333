"""The folder of a run whose weights are drawn, written without ranks: as one rank would have, or as several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.train.small_run import small_config
from unigrf_dist.config import save_config
from unigrf_dist.data import Dataset
from unigrf_dist.model.unigrf import UniGRF
from unigrf_dist.phases import Phases
from unigrf_dist.train.checkpoints.blocks import Block, sha256, write_blocks, write_json
from unigrf_dist.train.checkpoints.index import FORMAT
from unigrf_dist.train.checkpoints.state import TrainState
from unigrf_dist.train.checks import task_labels
from unigrf_dist.train.feature_codes import side_features

RULES = [{"rule": "rating >= 4"}, {"rule": "rating >= 2"}]
STEP = "step-00000000"


def write_drawn_run(run: Path, dataset: Dataset, *, files: int = 1, **changes: Any) -> None:
    """Write the configuration and a checkpoint in ``files`` files, as that many ranks leave it.

    The rows of each table are dealt to the files in runs of unequal length, and with several files the columns of
    the first file's rows to two of them, as column-wise sharding does.
    """
    config = small_config(data__path=str(dataset.path), objective__ranking=RULES, **changes)
    labels = task_labels(config, dataset)
    model = UniGRF(config, labels, num_items=dataset.num_items, phases=Phases())
    features = side_features(config, dataset, torch.device("cpu"))
    generator = torch.Generator().manual_seed(3)
    dense = {name: torch.randn(p.shape, generator=generator) * 0.4 for name, p in model.named_parameters()}
    rows = {"item": dataset.num_items, **features.cardinalities}
    tables = {name: torch.randn(number, config.model.width, generator=generator) for name, number in rows.items()}
    place = run / "checkpoints" / STEP
    place.mkdir(parents=True)
    save_config(config, run / "config.yaml")
    stored = []
    for file in range(files):
        blocks = [
            Block(f"dense/{name}/weight", 0, 0, value.numel(), value.reshape(1, -1))
            for number, (name, value) in enumerate(dense.items())
            if number % files == file
        ]
        for name, table in tables.items():
            blocks += _part(name, table, file, files)
        stored.append(write_blocks(place, f"rank-{file:05d}.safetensors", blocks).to_json())
    signature = {
        "items": [dataset.num_items, config.model.width],
        "catalogue": dataset.catalogue_fingerprint(),
        "features": features.cardinalities,
        "dense": {name: list(value.shape) for name, value in dense.items()},
    }
    write_json(place / "state.json", {"model": signature, "train": TrainState().to_json(), "order": ""})
    index = {"format": FORMAT, "step": 0, "state_sha256": sha256(place / "state.json"), "files": stored}
    write_json(place / "index.json", index)
    for pointer in ("best", "latest"):
        (run / "checkpoints" / pointer).write_text(STEP)


def _part(name: str, table: torch.Tensor, file: int, files: int) -> list[Block]:
    width = table.shape[1]
    bounds = [len(table) * number * (number + 1) // (files * (files + 1)) for number in range(files + 1)]
    first, last = bounds[file], bounds[file + 1]
    if file == 0 and files > 1:
        return [Block(f"table/{name}/weight", first, 0, width // 3, table[first:last, : width // 3])]
    blocks = [Block(f"table/{name}/weight", first, 0, width, table[first:last])]
    if file == 1:
        left = table[: bounds[1], width // 3 :]
        blocks.append(Block(f"table/{name}/weight", 0, width // 3, width - width // 3, left))
    return blocks
