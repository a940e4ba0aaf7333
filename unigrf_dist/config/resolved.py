"""A configuration with every default filled in, as YAML that says which values are defaults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from unigrf_dist.config.schema import Config, Section


def resolved_yaml(config: Config) -> str:
    """``config`` as YAML; ``load_config`` reads an equal object back.

    Values that neither the file nor an override gave end in ``# default``.
    """
    return "".join(f"{line}\n" for line in _lines(config, config.model_dump(mode="json"), indent=0))


def _lines(section: Section, values: dict[str, Any], *, indent: int) -> Iterator[str]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield f"{' ' * indent}{name}:"
            yield from _lines(value, values[name], indent=indent + 2)
            continue
        # Unbounded lines: a value that is folded could not take a comment.
        text = yaml.safe_dump({name: values[name]}, sort_keys=False, width=float("inf"))
        first, *rest = text.splitlines()
        mark = "" if name in section.model_fields_set else "  # default"
        yield from (" " * indent + line for line in (first + mark, *rest))
