"""The page of all configuration keys, made from the schema: `docs/configuration.md`."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from unigrf_dist.config.schema import Config, Section

_HEAD = """\
# All keys of a configuration

<!-- Made from unigrf_dist/config/schema.py by `make docs`; change the descriptions there. -->

The files under `configs/` are read by this schema. An unknown key, a wrong type or a value out of range is refused
with the name of the key. `--set section.key=value` replaces a value, as in `--set train.epochs=5`; the value is
YAML, so a whole section can be given: `--set 'objective.enhancer={candidates: 16}'`.

    unigrf config show configs/demo.yaml --set train.epochs=5

prints the configuration of a run with every default filled in.
"""
_KINDS: dict[Any, str] = {int: "integer", float: "number", bool: "`true`, `false`", str: "text", Path: "path"}
_KINDS_OF_MANY = {int: "integers", float: "numbers", str: "texts", Path: "paths"}
# Attributes of pydantic's constraints, lower bounds first, and how a range writes them.
_BOUNDS = {"gt": ">", "ge": "≥", "min_length": "≥", "lt": "<", "le": "≤", "max_length": "≤"}


class Key(NamedTuple):
    """A line of the page.

    Attributes:
        name: name of the key inside its section.
        kind: type, or the values there are.
        default: default as YAML writes it; empty for a key that must be given.
        bounds: range of a number or of a length; empty for none.
        description: what the key sets, with its unit.
    """

    name: str
    kind: str
    default: str
    bounds: str
    description: str


class SectionKeys(NamedTuple):
    """The keys of one section.

    Attributes:
        path: dotted path of the section, ``[]`` behind a list; empty for the top of the file.
        summary: what the section is about.
        keys: the section's own keys, without those of the sections inside it.
    """

    path: str
    summary: str
    keys: list[Key]


def sections(model: type[Section] = Config, path: str = "", note: str = "") -> Iterator[SectionKeys]:
    """``model`` and the sections inside it, in the order of the schema.

    Args:
        model: schema of the section.
        path: its dotted path.
        note: what the section's place in the file adds to the summary.
    """
    keys = [_key(name, field) for name, field in model.model_fields.items() if section_of(field) is None]
    yield SectionKeys(path, f"{' '.join((inspect.getdoc(model) or '').split())} {note}".strip(), keys)
    for name, field in model.model_fields.items():
        if inner := section_of(field):
            is_list = get_origin(field.annotation) is list
            place = f"{path}.{name}{'[]' if is_list else ''}".lstrip(".")
            entries = f"A list of {_bounds(field)} entries." if is_list else ""
            yield from sections(inner, place, f"{field.description or ''} {entries}".strip())


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that ``field`` holds: as it is, optional, or as a list; None for a plain value."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if inspect.isclass(kind) and issubclass(kind, Section):
            return kind
    return None


def configuration_page() -> str:
    """The whole page, as Markdown."""
    first, *rest = sections()
    parts = [_HEAD]
    for section in (*rest, first):
        title = f"`{section.path}`" if section.path else "The top of the file"
        parts.append(f"## {title}\n\n{_summary(section)}\n\n{_table(section.keys)}" if section.keys else "")
    return "\n".join(part for part in parts if part)


def _summary(section: SectionKeys) -> str:
    # Docstrings mark code as reStructuredText does.
    return section.summary.replace("``", "`")


def _table(keys: list[Key]) -> str:
    rows = ["| key | values | default | range | |", "|---|---|---|---|---|"]
    for key in keys:
        default = f"`{key.default}`" if key.default else "must be given"
        rows.append(f"| `{key.name}` | {key.kind} | {default} | {key.bounds} | {key.description} |")
    return "\n".join(rows) + "\n"


def _key(name: str, field: FieldInfo) -> Key:
    return Key(name, _kind(field.annotation), _default(field), _bounds(field), field.description or "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    return field.default if isinstance(field.default, str) else json.dumps(field.default)


def _kind(annotation: Any) -> str:
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("`null`" if kind is type(None) else _kind(kind) for kind in arguments)
    if origin is list:
        return f"list of {_KINDS_OF_MANY[arguments[0]]}"
    if origin is tuple:
        return f"{len(arguments)} {_KINDS_OF_MANY[arguments[0]]}"
    return "mapping" if origin is dict else _KINDS[annotation]


def _bounds(field: FieldInfo) -> str:
    """``≥ 0, < 1``."""
    limits = {name: getattr(each, name) for each in field.metadata for name in _BOUNDS if hasattr(each, name)}
    return ", ".join(f"{sign} {_plain(limits[name])}" for name, sign in _BOUNDS.items() if name in limits)


def _plain(number: float) -> str:
    """``0``, where Python would write ``0.0``."""
    return str(int(number)) if number == int(number) else str(number)
