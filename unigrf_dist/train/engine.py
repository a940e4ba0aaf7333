"""The DeepSpeed engine over the dense part of the model."""

from __future__ import annotations

import copy
from typing import Any

import deepspeed
import torch.distributed as dist

from unigrf_dist.config import Config
from unigrf_dist.model.unigrf import UniGRF

_NEVER = 1 << 40


def build_engine(config: Config, model: UniGRF, *, num_users: int) -> Any:
    """Hand ``model`` to DeepSpeed under the configuration's ``deepspeed`` section.

    Args:
        config: configuration of the run.
        model: the dense part.
        num_users: users of the data set, from which the number of steps of the run follows.
    """
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=[p for p in model.parameters() if p.requires_grad],
        config=engine_config(config, num_users=num_users),
        dist_init_required=False,
    )
    return engine


def engine_config(config: Config, *, num_users: int) -> dict[str, Any]:
    """The section as given, with what belongs to this program: batch sizes, a torch optimizer, the run's length.

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
    # Without it, DeepSpeed's "Adam" becomes AdamW with torch's default decay of 0.01.
    parameters.setdefault("weight_decay", 0.0)
    schedule = section.get("scheduler", {}).get("params", {})
    if schedule.get("total_num_steps") == "auto":
        schedule["total_num_steps"] = config.train.epochs * -(-num_users // config.train.global_batch_users)
    return section


def base_learning_rate(config: Config) -> float:
    """The dense learning rate that the configuration names, before any schedule."""
    return float(config.deepspeed["optimizer"].get("params", {}).get("lr", 1e-3))
