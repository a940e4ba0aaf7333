"""Rules that several sections of a configuration, DeepSpeed's included, must keep together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from unigrf_dist.config.schema import Config

_SCHEDULERS = ("WarmupCosineLR", "WarmupDecayLR", "WarmupLR", "OneCycle", "LRRangeTest")
# Sizes of a batch are said once, in train.global_batch_users: DeepSpeed would count users, not steps.
_OWNED_KEYS = ("train_batch_size", "train_micro_batch_size_per_gpu")


def _no_fp16(config: Config) -> Iterator[str]:
    if _part(config, "fp16").get("enabled"):
        yield (
            "deepspeed.fp16.enabled is true: a loss scale would reach the tables' fused optimizer; "
            "use deepspeed.bf16.enabled"
        )


def _no_accumulation(config: Config) -> Iterator[str]:
    steps = config.deepspeed.get("gradient_accumulation_steps", 1)
    if steps != 1:
        yield (
            f"deepspeed.gradient_accumulation_steps is {steps}: the tables are updated inside every backward, "
            "so only 1 is allowed; raise train.global_batch_users instead"
        )


def _batch_size_said_once(config: Config) -> Iterator[str]:
    for key in _OWNED_KEYS:
        if key in config.deepspeed:
            yield f"deepspeed.{key} is set: the batch size belongs in train.global_batch_users; remove the key"


def _bf16_keeps_master_weights(config: Config) -> Iterator[str]:
    if _part(config, "bf16").get("enabled") and _zero_stage(config) == 0:
        yield (
            "deepspeed.bf16.enabled with zero_optimization.stage 0 keeps no fp32 master weights and trains worse: "
            "use stage 1, 2 or 3"
        )


def _known_stage(config: Config) -> Iterator[str]:
    stage = _zero_stage(config)
    if stage not in (0, 1, 2, 3):
        yield f"deepspeed.zero_optimization.stage is {stage!r}; allowed: 0, 1, 2, 3"


def _optimizer_given(config: Config) -> Iterator[str]:
    kind = _part(config, "optimizer").get("type")
    if kind not in ("Adam", "AdamW"):
        yield f"deepspeed.optimizer.type is {kind!r}; allowed: Adam, AdamW (checkpoints hold Adam's two moments)"


def _sections_are_mappings(config: Config) -> Iterator[str]:
    for name in ("optimizer", "scheduler", "zero_optimization", "bf16", "fp16"):
        if name in config.deepspeed and not isinstance(config.deepspeed[name], dict):
            yield f"deepspeed.{name} is {config.deepspeed[name]!r}; give a mapping, or leave the key out"


def _rates_are_numbers(config: Config) -> Iterator[str]:
    rate = (_part(config, "optimizer").get("params") or {}).get("lr", 1e-3)
    if not _is_number(rate) or rate <= 0:
        yield f"deepspeed.optimizer.params.lr is {rate!r}; it must be a number above 0"
    clipping = config.deepspeed.get("gradient_clipping", 0.0)
    if not _is_number(clipping) or clipping < 0:
        yield f"deepspeed.gradient_clipping is {clipping!r}; it must be a number, 0 for none"


def _known_scheduler(config: Config) -> Iterator[str]:
    kind = _part(config, "scheduler").get("type", _SCHEDULERS[0])
    if kind not in _SCHEDULERS:
        yield f"deepspeed.scheduler.type is {kind!r}; allowed: {', '.join(_SCHEDULERS)}"


def _weighter_fits(config: Config) -> Iterator[str]:
    weighter = config.objective.weighter
    if weighter.strategy != "static" and 0 in (weighter.retrieval, weighter.ranking):
        yield (
            f"objective.weighter.strategy {weighter.strategy} starts from retrieval and ranking, both above 0; "
            "to train one task use static"
        )
    if weighter.exact_every_steps is not None and _zero_stage(config) == 3:
        yield (
            "objective.weighter.exact_every_steps needs whole parameters, which zero_optimization.stage 3 cuts "
            "up: use stage 0, 1 or 2 to measure"
        )


def _tasks_distinct(config: Config) -> Iterator[str]:
    rules = [task.rule for task in config.objective.ranking]
    for rule in sorted({rule for rule in rules if rules.count(rule) > 1}):
        yield f"objective.ranking names {rule!r} more than once; metrics are named by the rule"


def _weights_not_all_zero(config: Config) -> Iterator[str]:
    weighter = config.objective.weighter
    if weighter.retrieval == 0 and weighter.ranking == 0:
        yield "objective.weighter.retrieval and .ranking are both 0: nothing would be trained"


def _ranking_where_needed(config: Config) -> Iterator[str]:
    objective = config.objective
    if objective.ranking:
        return
    if objective.enhancer is not None:
        yield "objective.enhancer scores by the first ranking task, but objective.ranking is []"
    if objective.weighter.strategy != "static" or objective.weighter.exact_every_steps is not None:
        yield "objective.weighter balances two tasks, but objective.ranking is []: leave it out"
    if objective.weighter.retrieval == 0:
        yield "objective.weighter.retrieval is 0 and objective.ranking is []: nothing would be trained"


def _ids_fit(config: Config) -> Iterator[str]:
    ids, enhancer = config.tables.ids, config.objective.enhancer
    if ids.kind == "static":
        for name, field in type(ids).model_fields.items():
            if getattr(ids, name) != field.default:
                yield f"tables.ids.{name} is for dynamic ids: set tables.ids.kind to dynamic, or leave it out"
        return
    if ids.capacity is None:
        yield "tables.ids.kind is dynamic, but tables.ids.capacity is missing: say how many rows there are"
    if ids.evict == "ttl" and ids.ttl_steps is None:
        yield "tables.ids.evict is ttl, but tables.ids.ttl_steps is missing: say after how many steps rows go"
    if ids.evict != "ttl" and ids.ttl_steps is not None:
        yield f"tables.ids.ttl_steps is set, but tables.ids.evict is {ids.evict}: set it to ttl, or leave it out"
    if enhancer is not None and ids.capacity is not None and enhancer.candidates > ids.capacity:
        yield (
            f"objective.enhancer.candidates is {enhancer.candidates}, but tables.ids.capacity = {ids.capacity}: "
            "candidates are live items; raise the capacity"
        )


RULES: tuple[Callable[[Config], Iterator[str]], ...] = (
    _no_fp16,
    _no_accumulation,
    _batch_size_said_once,
    _bf16_keeps_master_weights,
    _known_stage,
    _optimizer_given,
    _sections_are_mappings,
    _rates_are_numbers,
    _known_scheduler,
    _weighter_fits,
    _tasks_distinct,
    _ranking_where_needed,
    _weights_not_all_zero,
    _ids_fit,
)


def _zero_stage(config: Config) -> int:
    return _part(config, "zero_optimization").get("stage", 0)


def _part(config: Config, name: str) -> dict[str, Any]:
    """A section of DeepSpeed's configuration; empty where ``_sections_are_mappings`` complains."""
    part = config.deepspeed.get(name, {})
    return part if isinstance(part, dict) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def broken_rules(config: Config) -> list[str]:
    """One line for every rule that ``config`` breaks: all of them, not the first."""
    return [problem for rule in RULES for problem in rule(config)]
