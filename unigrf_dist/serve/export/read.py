"""An export, read and verified; needs torch, safetensors, numpy, pyarrow, pydantic and PyYAML alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from unigrf_dist.config.task_rule import label_table, target_behaviours
from unigrf_dist.errors import UserError
from unigrf_dist.model.side_features import SideFeatures
from unigrf_dist.model.unigrf import UniGRF
from unigrf_dist.phases import Phases
from unigrf_dist.serve.dense_tables import ITEM, DenseTables
from unigrf_dist.serve.export.bundle import CONFIG_FILE, ITEMS_FILE, verify
from unigrf_dist.serve.export.contents import LIVE, ExportConfig, stored_codes, stored_table
from unigrf_dist.serve.export.weights import load_tensors
from unigrf_dist.serve.loaded import ItemDictionary, LoadedRun
from unigrf_dist.serve.recommender import Recommender


def from_pretrained(folder: Path | str) -> Recommender:
    """A recommender from a folder that ``unigrf export`` wrote, for histories that requests bring.

    Every file is compared with its hash first. A request's ``blend`` is the export's unless it names one.

    Args:
        folder: folder of the export.

    Raises:
        UserError: there is no export, a file of it is damaged, or another version wrote it.
    """
    return Recommender.of(load_export(Path(folder)))


def load_export(folder: Path) -> LoadedRun:
    """What answering takes, from a folder that ``unigrf export`` wrote.

    Raises:
        UserError: as `from_pretrained`.
    """
    verify(folder)
    try:
        stored = ExportConfig.model_validate(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
        tensors = load_tensors(folder)
        return _loaded(stored, tensors, _items(folder / ITEMS_FILE))
    except (OSError, ValueError, KeyError, RuntimeError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: not an export that this version reads ({reason}); make it anew") from error


def _loaded(stored: ExportConfig, tensors: Mapping[str, Tensor], items: ItemDictionary) -> LoadedRun:
    config, behaviours = stored.config, stored.behaviours
    model = UniGRF(
        config,
        label_table([task.rule for task in config.objective.ranking], behaviours),
        num_items=stored.num_items,
        phases=Phases(),
        targets=target_behaviours(config.objective.retrieval.targets, behaviours),
    ).eval()
    own = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    model.load_state_dict(own)
    codes = {name: stored_codes(tensors, name, number) for name, number in stored.item_features.items()}
    features = SideFeatures(codes, stored.user_features, torch.device("cpu"))
    weights = {name: stored_table(tensors, name) for name in (ITEM, *features.cardinalities)}
    tables = DenseTables(weights, features, tensors.get(LIVE))
    return LoadedRun(config, items, behaviours, model, tables, stored.checkpoint, stored.blend, dataset=None)


def _items(file: Path) -> ItemDictionary:
    table = pq.read_table(file)
    counts = torch.from_numpy(table.column("training_events").to_numpy().copy())
    titles = table.column("title").combine_chunks() if "title" in table.column_names else None
    return ItemDictionary(table.column("raw_id").combine_chunks(), counts, titles)
