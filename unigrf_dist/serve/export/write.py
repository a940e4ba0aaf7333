"""``unigrf export``: from a checkpoint of a run to a folder of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.metrics_file import read_metrics
from unigrf_dist.serve.approximate import ApproximateCatalogue, build_index, load_faiss
from unigrf_dist.serve.export.bundle import (
    CARD_FILE,
    CONFIG_FILE,
    INDEX_FILE,
    ITEMS_FILE,
    appear,
    refuse_used,
)
from unigrf_dist.serve.export.card import model_card
from unigrf_dist.serve.export.contents import (
    Quantization,
    config_json,
    export_config,
    export_tensors,
    stored_tables,
)
from unigrf_dist.serve.export.evaluation import evaluated
from unigrf_dist.serve.export.formats import refuse_unwritable, write_formats
from unigrf_dist.serve.export.recall import recall
from unigrf_dist.serve.export.weights import save_tensors
from unigrf_dist.serve.loaded import ItemDictionary, LoadedRun
from unigrf_dist.serve.loading import load_run
from unigrf_dist.train.run_folder import refuse_trained_on


@dataclass(frozen=True)
class Exported:
    """What became an export.

    Attributes:
        run: the run, as its folder gave it.
        blend: lambda of ranking tasks, by rule, where a request names none.
        recall: by ``k``, what approximate search finds of the exact ``k`` best items; None without an index.
    """

    run: LoadedRun
    blend: dict[str, float]
    recall: dict[int, float] | None


def export_run(
    run: Path,
    out: Path,
    *,
    checkpoint: str = "best",
    overrides: Sequence[str] = (),
    blend: Mapping[str, float] | None = None,
    quantize: Quantization = "none",
    evaluate: bool = False,
    formats: Collection[str] = (),
    ann: bool = False,
) -> Exported:
    """Write an export, the same bytes whatever ranks wrote the checkpoint; ``out`` appears when it is complete.

    Args:
        run: folder of the run.
        out: folder of the export, which is not there yet or empty.
        checkpoint: ``best``, ``latest`` or a checkpoint's name.
        overrides: ``key=value`` of the configuration, such as where the data set lies now.
        blend: lambda of each ranking task, by rule, that requests get which name none; if left out what validation
            chose for this checkpoint, else 0.
        quantize: ``int8`` stores the tables with a byte per value.
        evaluate: evaluate on the test split what is exported, for the model card; without it the card has the
            figures of ``unigrf evaluate``.
        formats: graphs for other runtimes, of `formats.FORMATS`.
        ann: add an index for approximate search.

    Raises:
        UserError: as `load_run`; or the folder is used or can't be written, ``blend`` names no task, or a
            format or the index can't be written here.
    """
    refuse_used(out)
    if evaluate:
        refuse_trained_on(run, "test")
    loaded = load_run(run, checkpoint=checkpoint, overrides=overrides)
    chosen = _checked_blend(loaded, loaded.blend if blend is None else blend)
    config = export_config(loaded, chosen, quantize)
    refuse_unwritable(formats, loaded)
    if ann:
        load_faiss("--ann")
    tensors = export_tensors(loaded, quantize)
    stored = replace(loaded, tables=stored_tables(loaded, tensors))
    record = evaluated(stored) if evaluate else read_metrics(run).get("test")
    index = _index(stored) if ann else None
    found = recall(stored, index) if index is not None else None
    card = model_card(loaded, config, record, name=out.name, measured=evaluate, recall=found)

    def write(folder: Path) -> None:
        text = json.dumps(config_json(config), indent=1, allow_nan=False)
        (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
        save_tensors(folder, tensors)
        write_formats(folder, stored, formats)
        write_items(folder / ITEMS_FILE, loaded.items)
        if index is not None:
            index.write(folder / INDEX_FILE)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")

    appear(out, write)
    return Exported(loaded, chosen, found)


def _index(run: LoadedRun) -> ApproximateCatalogue:
    normalize = run.config.objective.retrieval.normalize
    return build_index(run.tables.items, normalize=normalize, live=run.tables.live)


def _checked_blend(run: LoadedRun, blend: Mapping[str, float]) -> dict[str, float]:
    for task, value in blend.items():
        if task not in run.tasks:
            raise UserError(
                f"blend names {task!r}, but the run's ranking tasks are: {', '.join(run.tasks) or 'none'}"
            )
        if not math.isfinite(value):
            raise UserError(f"blend of {task!r} is {value}; give a finite number, such as 0.25")
    return dict(blend)


def write_items(file: Path, items: ItemDictionary) -> None:
    """Write ``items.parquet`` of an export."""
    columns = {
        "row": pa.array(np.arange(len(items))),
        "raw_id": items.raw_ids,
        "training_events": pa.array(items.training_counts.numpy()),
    }
    if items.titles is not None:
        columns["title"] = items.titles
    pq.write_table(pa.table(columns), file, compression="zstd")
