"""What configurations a run has had: a resumed run goes on with its own, unless a change is allowed by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unigrf_dist.config import Config
from unigrf_dist.errors import UserError

HISTORY_FILE = "config_history.jsonl"
# Keys that change no weight of the model and no choice of a checkpoint.
_FREE_KEYS = (
    "data.path",  # the data's fingerprint is compared instead
    "data.prefetch_batches",
    "evaluate.batch_users",
    "evaluate.bootstrap_samples",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.log_every_steps",
    "train.timeout_seconds",
)


def changed_keys(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """Old and new value of every key that differs, by its dotted name."""
    old, new = flat_config(before), flat_config(after)
    return {key: (old.get(key), new.get(key)) for key in sorted(old | new) if old.get(key) != new.get(key)}


def refuse_changed(run: Path, before: Config, after: Config, allowed: Sequence[str]) -> None:
    """Raise UserError where a resumed run would train on with another configuration.

    Args:
        run: the run's folder, for the message.
        before: configuration that the run has had until now.
        after: configuration that it is resumed with.
        allowed: keys that may differ; a section's name allows all of its keys.
    """
    refused = {
        key: values
        for key, values in changed_keys(before, after).items()
        if key not in _FREE_KEYS and not any(key == name or key.startswith(f"{name}.") for name in allowed)
    }
    if refused:
        changes = ", ".join(f"{key} was {old!r} and is {new!r}" for key, (old, new) in refused.items())
        allow = " ".join(f"--allow-change {key}" for key in refused)
        raise UserError(
            f"{run}: resumed with another configuration: {changes}; take the run's own "
            f"(--config {run}/config.yaml), or allow the change ({allow})"
        )


def note_config(run: Path, before: Config | None, after: Config, *, step: int, ranks: int) -> None:
    """Append what the run is trained with from ``step`` on, and what that changes, to its history.

    Raises:
        OSError: the history can't be written.
    """
    changed = {} if before is None else {k: list(v) for k, v in changed_keys(before, after).items()}
    record = {"from_step": step, "ranks": ranks, "changed": changed, "config": after.model_dump(mode="json")}
    with (run / HISTORY_FILE).open("a", encoding="utf-8") as history:
        history.write(json.dumps(record) + "\n")


def flat_config(config: Config) -> dict[str, Any]:
    """Every value by its dotted key; lists are values."""
    return dict(_flat(config.model_dump(mode="json")))


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of a nested mapping; lists are values."""
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, values
