"""The section of the configuration: every value the run was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unigrf_dist.report.run_data import RunData
from unigrf_dist.report.words import Missing, plain


@dataclass(frozen=True)
class Configuration:
    """Keys and values of each section of the configuration.

    Attributes:
        groups: sections by name, each with its dotted keys and their values.
        missing: note in their place, or None.
    """

    groups: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    missing: Missing | None = None


def configuration(data: RunData) -> Configuration:
    """The resolved configuration of the run, section by section."""
    if not data.config:
        return Configuration([], Missing("The run's config.yaml is not there"))
    return Configuration(
        [
            (name, _flat(values if isinstance(values, dict) else {name: values}))
            for name, values in data.config.items()
        ]
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", plain(value)))
    return rows
