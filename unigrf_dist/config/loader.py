"""YAML file (+ ``--set key=value``) → validated ``Config``; every mistake is named with its key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from unigrf_dist.config.renamed import RENAMED_KEYS
from unigrf_dist.config.rules import broken_rules
from unigrf_dist.config.schema import Config
from unigrf_dist.errors import UserError

_Model = TypeVar("_Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads ``1e-3`` as a number (YAML 1.2), and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+"),
    list("-+0123456789."),
)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read ``path``, apply ``overrides`` (``section.key=value``, the value in YAML) and validate.

    Raises:
        UserError: the file can't be read, is no YAML, or breaks the schema; the message names every key.
    """
    values = read_yaml(path)
    for override in overrides:
        _apply_override(values, override)
    config = validate(Config, values, path)
    if problems := broken_rules(config):
        raise UserError(f"{path}: {'; '.join(problems)}")
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: the file can't be read, is no YAML, or holds no mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"{path}: can't read the configuration: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a configuration is a mapping of sections (data, model, objective, train, …)")
    return values


def validate(model: type[_Model], values: dict[str, Any], path: Path) -> _Model:
    """``values``, read from ``path``, as an object of the schema ``model``.

    Raises:
        UserError: they break the schema; the message names every key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(problem, model) for problem in error.errors())
        raise UserError(f"{path}: {problems}") from error


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration; ``load_config`` reads an equal object back."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise UserError(f"--set {override}: write section.key=value, as in train.epochs=5")
    *sections, leaf = key.strip().split(".")
    target = values
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise UserError(f"--set {override}: {section} is a value, not a section")
    try:
        target[leaf] = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is no valid YAML") from error


def _describe(problem: Any, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        # An entry of a list has its index in the location: objective.ranking.0.rule.
        if new := RENAMED_KEYS.get(".".join(str(part) for part in problem["loc"] if not isinstance(part, int))):
            return f"unknown key {key}; it is called {new} now"
        allowed = _allowed_keys(model, problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), allowed, n=1)
        hint = f"did you mean {close[0]}?" if close else f"allowed here: {', '.join(allowed)}"
        return f"unknown key {key}; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"key {key} is missing"
    return f"{key} = {problem['input']!r}: {message}" if key else message


def _allowed_keys(root: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    model: Any = root
    for part in location:
        if isinstance(part, int) or part not in model.model_fields:  # an index of a list, a name in a mapping
            continue
        annotation = model.model_fields[part].annotation
        inner = getattr(annotation, "__args__", (annotation,))
        models = [each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)]
        model = models[0] if models else model
    return list(model.model_fields)
