"""The DeepSpeed engine over the dense part of the model."""

from __future__ import annotations

import copy
from typing import Any

import deepspeed
import torch.distributed as dist

from unigrf_dist.config import Config
from unigrf_dist.model.unigrf import UniGRF

_NEVER = 1 << 40


def build_engine(config: Config, model: UniGRF) -> Any:
    """Hand ``model`` to DeepSpeed under the configuration's ``deepspeed`` section."""
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=[p for p in model.parameters() if p.requires_grad],
        config=engine_config(config),
        dist_init_required=False,
    )
    return engine


def engine_config(config: Config) -> dict[str, Any]:
    """The section as given, with what belongs to this program: batch sizes and a torch optimizer.

    A batch is jagged, so DeepSpeed's own sizes count steps, not samples: one per rank.
    """
    section = copy.deepcopy(config.deepspeed)
    section.update(
        train_batch_size=dist.get_world_size(),
        train_micro_batch_size_per_gpu=1,
        gradient_accumulation_steps=1,
        steps_per_print=_NEVER,
    )
    parameters = section["optimizer"].setdefault("params", {})
    # The same optimizer code on every device, and the one whose state checkpoints are written for. Offloaded
    # optimizers stay DeepSpeed's.
    if "offload_optimizer" not in section.get("zero_optimization", {}):
        parameters.setdefault("torch_adam", True)
    # Left out, DeepSpeed's "Adam" becomes AdamW with torch's default decay of 0.01.
    parameters.setdefault("weight_decay", 0.0)
    return section


def base_learning_rate(config: Config) -> float:
    """The dense learning rate that the configuration names, before any schedule."""
    return float(config.deepspeed["optimizer"].get("params", {}).get("lr", 1e-3))
