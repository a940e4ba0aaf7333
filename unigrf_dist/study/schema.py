"""The YAML files of studies: which runs, and what each overrides.

Each section documents its fields; unknown keys and bad values are errors that name the key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from unigrf_dist.config.loader import read_yaml, validate
from unigrf_dist.config.schema import Section
from unigrf_dist.study.metric_names import metric_of_study

_DEFAULT_METRICS = ("ndcg@10", "hr@10", "hr@50", "mrr", "auc", "log_loss")
# A variant's name becomes a folder's.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SEED_KEY = "train.seed"


class Variant(Section):
    description: str = Field("", description="What is different, in a few words for the tables.")
    overrides: dict[str, Any] = Field({}, description="Dotted keys of the configuration and their values.")

    @field_validator("overrides")
    @classmethod
    def _leaves_the_seed(cls, overrides: dict[str, Any]) -> dict[str, Any]:
        return _without_seed(overrides)


class Study(Section):
    base: Path = Field(description="Configuration of an ordinary run; relative to this file.")
    seeds: list[int] = Field(min_length=1, description="Values of train.seed; every variant is run with each.")
    metrics: list[str] = Field(
        list(_DEFAULT_METRICS),
        min_length=1,
        description="Metrics to tabulate and draw; `auc` is of the first ranking task, `auc[RULE]` of any.",
    )
    overrides: dict[str, Any] = Field({}, description="Dotted keys and values that all runs share.")

    @field_validator("overrides")
    @classmethod
    def _leaves_the_seed(cls, overrides: dict[str, Any]) -> dict[str, Any]:
        return _without_seed(overrides)

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is given twice; equal runs say nothing about chance")
        return seeds

    @field_validator("metrics")
    @classmethod
    def _metrics_exist(cls, metrics: list[str]) -> list[str]:
        return list(dict.fromkeys(metric_of_study(metric) for metric in metrics))

    def runs(self) -> dict[str, Variant]:
        """The variants by name, in the order of the tables."""
        raise NotImplementedError


class Ablation(Study):
    baseline: str = Field(description="Name of the variant that the others are compared with.")
    variants: dict[str, Variant] = Field(min_length=1, description="Variants by name, in the order of the tables.")

    @model_validator(mode="after")
    def _names_fit(self) -> Ablation:
        bad = [name for name in self.variants if not _NAME.fullmatch(name)]
        if bad:
            raise ValueError(f"variants: {bad[0]!r} is no name of a folder; use letters, digits, - _ .")
        if self.baseline not in self.variants:
            raise ValueError(
                f"baseline = {self.baseline!r}: no such variant; there are: {', '.join(self.variants)}"
            )
        return self

    def runs(self) -> dict[str, Variant]:
        return self.variants


class Scaling(Study):
    blocks: list[int] = Field(min_length=1, description="Values of model.blocks.")
    widths: list[int] = Field(min_length=1, description="Values of model.width.")
    heads: int | None = Field(None, ge=1, description="Heads of every width; head_width is then width / heads.")
    head_width: int | None = Field(
        None, ge=1, description="Head width of every width; heads are then width / head_width."
    )

    @field_validator("blocks", "widths")
    @classmethod
    def _sizes_count(cls, sizes: list[int]) -> list[int]:
        if min(sizes) < 1 or len(set(sizes)) < len(sizes):
            raise ValueError("sizes are different numbers above 0")
        return sizes

    @model_validator(mode="after")
    def _one_rule_of_heads(self) -> Scaling:
        fixed = self.heads or self.head_width
        if fixed is None or (self.heads and self.head_width):
            raise ValueError("give one of heads and head_width; the other follows from the width")
        odd = [width for width in self.widths if width % fixed]
        if odd:
            name = "heads" if self.heads else "head_width"
            raise ValueError(f"widths {odd} are no multiples of {name} = {fixed}")
        return self

    def runs(self) -> dict[str, Variant]:
        return {
            f"b{blocks}-w{width}": Variant(
                description=f"{blocks} blocks of width {width}", overrides=self._overrides(blocks, width)
            )
            for blocks in self.blocks
            for width in self.widths
        }

    def _overrides(self, blocks: int, width: int) -> dict[str, Any]:
        heads = self.heads or width // (self.head_width or width)
        sizes = {"blocks": blocks, "width": width, "heads": heads, "head_width": width // heads}
        return {f"model.{name}": value for name, value in sizes.items()}


def read_ablation(path: Path) -> Ablation:
    """The study in a YAML file.

    Raises:
        UserError: it can't be read or breaks the schema; the message names every key.
    """
    return validate(Ablation, read_yaml(path), path)


def read_scaling(path: Path) -> Scaling:
    """The grid in a YAML file.

    Raises:
        UserError: it can't be read or breaks the schema; the message names every key.
    """
    return validate(Scaling, read_yaml(path), path)


def as_words(overrides: Mapping[str, Any]) -> list[str]:
    """``key=value`` as ``--set`` takes it; JSON is YAML that looks the same to every reader."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in overrides.items()]


def _without_seed(overrides: dict[str, Any]) -> dict[str, Any]:
    if _SEED_KEY in overrides:
        raise ValueError(f"{_SEED_KEY} belongs into seeds: differences are paired by it")
    return overrides
