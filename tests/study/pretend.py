"""A stand-in for the `unigrf` command: leaves what train and evaluate leave, without training.

``PRETEND`` in the environment is JSON: ``fail`` names variants whose training fails, ``slow`` those that train
until they are asked to stop and, resumed, end at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import zlib
from pathlib import Path

from unigrf_dist.config import Config, load_config, save_config

RETRIEVAL = ("hr@1", "hr@10", "hr@50", "hr@200", "ndcg@10", "ndcg@50", "ndcg@200", "mrr")


def main(arguments: list[str]) -> int:
    command, options = arguments[0], arguments[1:]
    run = Path(options[options.index("--run") + 1])
    return _train(run, options) if command == "train" else _evaluate(run)


def _train(run: Path, options: list[str]) -> int:
    behaviour = json.loads(os.environ.get("PRETEND", "{}"))
    words = [options[index + 1] for index, word in enumerate(options) if word == "--set"]
    config = load_config(Path(options[options.index("--config") + 1]), words)
    resume = "--resume" in options
    if (run / "config.yaml").exists() and not resume:
        print("error: holds a run already")
        return 2
    save_config(config, run / "config.yaml")
    if run.parent.name in behaviour.get("fail", []):
        print("error: the planted failure")
        return 2
    (run / "checkpoints").mkdir(exist_ok=True)
    if run.parent.name in behaviour.get("slow", []) and not resume:
        _until_asked(run)
        return 130
    _log(run, config)
    _checkpoint(run, "step-00000004")
    return 0


def _until_asked(run: Path) -> None:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    (run / "slow").touch()
    while not asked:
        time.sleep(0.02)
    _checkpoint(run, "step-00000002")


def _checkpoint(run: Path, name: str) -> None:
    for pointer in ("latest", "best"):
        (run / "checkpoints" / pointer).write_text(name)


def _value(run: Path, seed: int) -> float:
    """Variants differ by a fixed amount, seeds by another, so that paired differences have no spread."""
    return 0.1 + (zlib.crc32(run.parent.name.encode()) % 100) / 1000 + seed / 1000


def _log(run: Path, config: Config) -> None:
    size = config.model.width**2 * config.model.blocks
    metrics = {
        "retrieval": dict.fromkeys(RETRIEVAL, _value(run, config.train.seed)),
        "ranking": {task.rule: {"auc": 0.6, "log_loss": 0.5} for task in config.objective.ranking},
    }
    losses = {"loss_retrieval": 2 + 40 * size**-0.4, "loss_ranking": 0.4 + size**-0.4}
    records = [
        {"kind": "header", "items": 120, "steps_per_epoch": 2, "dense_parameters": size, "resumed_at_step": 0},
        {"kind": "step", "step": 4, "epoch": 1, "seconds": 1.0, **losses},
        {"kind": "validation", "step": 4, "epoch": 2, "best": True, **metrics},
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def _evaluate(run: Path) -> int:
    config = load_config(run / "config.yaml")
    value = _value(run, config.train.seed)
    metric = {"value": value, "low": value - 0.01, "high": value + 0.01}
    loss = 0.4 + 1 / (config.model.width * config.model.blocks)
    table = {
        "retrieval": dict.fromkeys(RETRIEVAL, metric),
        "ranking": {
            # Tasks differ by a fixed amount too.
            task.rule: {
                "auc": {**metric, "value": value + index / 10},
                "log_loss": {**metric, "value": loss},
                "ece": metric,
            }
            for index, task in enumerate(config.objective.ranking)
        },
    }
    record = {"checkpoint": (run / "checkpoints" / "best").read_text(), "model": table}
    (run / "metrics.json").write_text(json.dumps({"schema": 1, "splits": {"test": record}}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
