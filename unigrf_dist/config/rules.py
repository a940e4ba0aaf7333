"""What the sections of a configuration, and the DeepSpeed section, must agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from unigrf_dist.config.schema import Config

# Sizes of a batch are said once, in train.global_batch_users: DeepSpeed would count users, not steps.
_OWNED_KEYS = ("train_batch_size", "train_micro_batch_size_per_gpu")


def _no_fp16(config: Config) -> Iterator[str]:
    if config.deepspeed.get("fp16", {}).get("enabled"):
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
    stage = config.deepspeed.get("zero_optimization", {}).get("stage", 0)
    if config.deepspeed.get("bf16", {}).get("enabled") and stage == 0:
        yield (
            "deepspeed.bf16.enabled with zero_optimization.stage 0 keeps no fp32 master weights and trains worse: "
            "use stage 1, 2 or 3"
        )


def _known_stage(config: Config) -> Iterator[str]:
    stage = config.deepspeed.get("zero_optimization", {}).get("stage", 0)
    if stage not in (0, 1, 2, 3):
        yield f"deepspeed.zero_optimization.stage is {stage!r}; allowed: 0, 1, 2, 3"


def _optimizer_given(config: Config) -> Iterator[str]:
    kind = config.deepspeed.get("optimizer", {}).get("type")
    if kind not in ("Adam", "AdamW"):
        yield f"deepspeed.optimizer.type is {kind!r}; allowed: Adam, AdamW (checkpoints hold Adam's two moments)"


def _weights_not_all_zero(config: Config) -> Iterator[str]:
    weighter = config.objective.weighter
    if weighter.retrieval == 0 and weighter.ranking == 0:
        yield "objective.weighter.retrieval and .ranking are both 0: nothing would be trained"


RULES: tuple[Callable[[Config], Iterator[str]], ...] = (
    _no_fp16,
    _no_accumulation,
    _batch_size_said_once,
    _bf16_keeps_master_weights,
    _known_stage,
    _optimizer_given,
    _weights_not_all_zero,
)


def broken_rules(config: Config) -> list[str]:
    """One line for every rule that ``config`` breaks: all of them, not the first."""
    return [problem for rule in RULES for problem in rule(config)]
