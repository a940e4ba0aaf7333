"""The model card of an export, its README.md."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from unigrf_dist.data.manifest import Manifest
from unigrf_dist.serve.export.contents import ExportConfig
from unigrf_dist.serve.loaded import LoadedRun


def model_card(
    run: LoadedRun, config: ExportConfig, record: dict[str, Any] | None, *, name: str, measured: bool
) -> str:
    """Markdown.

    Args:
        run: the run that is exported.
        config: content of ``config.json``.
        record: metrics of the test split, as in ``metrics.json``; None if there are none.
        name: name of the folder.
        measured: whether they are of the export itself, not of the run.
    """
    assert run.dataset is not None, "an export is made from a run's folder"
    parts = [
        _head(config, name),
        _use(run),
        _data(run.dataset.manifest, run.dataset.path.resolve().name),
        _figures(record, run.checkpoint, before_int8=config.quantize == "int8" and not measured),
        _order(config, run.tasks),
        _limits(run, config),
    ]
    return "\n".join(parts)


def _head(config: ExportConfig, name: str) -> str:
    model = config.config.model
    return f"""---
library_name: unigrf_dist
tags: [recommendation, retrieval, ranking, generative-recommender]
---

# {name}

One model for retrieval and ranking (UniGRF, arXiv 2504.16454), with a backbone `{model.backbone}` of
{model.blocks} blocks and width {model.width}, over the latest {config.config.data.max_events} events of a user.
Checkpoint `{config.checkpoint}`, written by unigrf-dist {config.unigrf_dist}.
{"Tables are in int8, with a scale for each row." if config.quantize == "int8" else "Tables are in fp32."}
"""


def _use(run: LoadedRun) -> str:
    item, behaviour = run.items.raw_ids[0].as_py(), run.behaviours[0]
    return f"""## Use

```python
from unigrf_dist import from_pretrained

recommender = from_pretrained(".")
for entry in recommender.recommend(history=[({item!r}, {behaviour}, 1700000000)], k=10):
    print(entry.item, entry.score, entry.probabilities)
```

It takes torch, safetensors, numpy, pyarrow, pydantic and PyYAML; no training package. `MANIFEST.json` has the
SHA-256 of every file; all are compared when the export is loaded.
"""


def _data(manifest: Manifest, name: str) -> str:
    first, last = (_day(each) for each in (manifest.first_timestamp, manifest.last_timestamp))
    return f"""## Data

`{name}`, prepared from {manifest.source}: {manifest.num_users:,} users, {manifest.num_items:,} items and
{manifest.num_events:,} events from {first} to {last}, of which {manifest.num_training_events:,} were trained on.
Split: {manifest.split_rule}.
"""


def _figures(record: dict[str, Any] | None, checkpoint: str, *, before_int8: bool) -> str:
    if record is None or record["checkpoint"] != checkpoint:
        return (
            "## Figures\n\nThis checkpoint was not evaluated on the test split (`unigrf evaluate --split test`).\n"
        )
    rows = [
        "## Figures",
        "",
        f"The test split: {record['num_users']:,} users,",
        f"{record['protocol']['candidates']:,} candidate items each; intervals are bootstrapped over users.",
        *(["Measured with the tables in fp32, before they were stored in int8."] if before_int8 else []),
        "",
        "| metric | value | 95 % interval |",
        "|---|---:|---:|",
        *_metric_rows(record["model"]["retrieval"], ""),
    ]
    for task, values in record["model"]["ranking"].items():
        rows += _metric_rows(values, f" of `{task}`")
    return "\n".join(rows) + "\n"


def _metric_rows(values: dict[str, Any], of: str) -> Iterator[str]:
    for name, each in values.items():
        if each["value"] is not None:
            interval = "" if each.get("low") is None else f"{each['low']:.4f} to {each['high']:.4f}"
            yield f"| {name}{of} | {each['value']:.4f} | {interval} |"


def _order(config: ExportConfig, tasks: list[str]) -> str:
    blend = (
        ", ".join(f"`{task}`: {config.blend.get(task, 0.0):g}" for task in tasks) or "there are no ranking tasks"
    )
    return f"""## Order of a list

`score = log p_retrieval + Σ λ log p_task`. λ of a request that names none: {blend}.
"""


def _limits(run: LoadedRun, config: ExportConfig) -> str:
    lines = [
        "Probabilities of ranking tasks are calibrated on items that users came to consume; for an item that a",
        "user would not choose they say little, and a list sorted by them alone is a bad list.",
        "",
        "Items that came after training have no vector: their events are left out of a history, and counted. A",
        "history without a known item gets the most popular items.",
    ]
    if config.user_features:
        lines += [
            "",
            "A history that a request brings says nothing of side features of its user: they count as missing.",
        ]
    if config.quantize == "int8":
        lines += ["", "Tables are stored in int8 and computed with in fp32: smaller on disk, not in memory."]
    return "## Limits\n\n" + "\n".join(lines) + "\n"


def _day(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"
