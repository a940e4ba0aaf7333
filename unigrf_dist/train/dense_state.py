"""Weights and Adam moments of the dense parameters, whole, under every ZeRO stage.

DeepSpeed's own checkpoints fit one world size only, and its universal format is wrong for ZeRO-3 with several
parameter groups. Here each parameter is gathered under its name, in fp32, and can be laid out again on any
number of ranks. All functions are collective: call them on every rank.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")
DenseState = dict[str, dict[str, Tensor]]


def read_dense_state(engine: Any) -> DenseState:
    """``{parameter: {weight, exp_avg, exp_avg_sq}}``, fp32 copies on every rank."""
    _ensure_moments(engine)
    state = {}
    for name, parameter in engine.module.named_parameters():
        values = _read_sharded(parameter) if _stage(engine) else _read_plain(engine, parameter)
        state[name] = {key: value.detach().float().clone() for key, value in values.items()}
    return state


def dense_state_template(engine: Any) -> DenseState:
    """Zeros in the shapes of ``read_dense_state``, to load into."""
    shapes = {name: parameter_shape(p) for name, p in engine.module.named_parameters()}
    return {name: {key: torch.zeros(shape) for key in ("weight", *MOMENTS)} for name, shape in shapes.items()}


def write_dense_state(engine: Any, state: DenseState, *, step: int) -> None:
    """Lay out ``state`` on the engine, as it was after ``step`` updates."""
    _ensure_moments(engine)
    for name, parameter in engine.module.named_parameters():
        values = {key: value.to(parameter.device) for key, value in state[name].items()}
        if _stage(engine) == 0:
            _write_plain(engine, parameter, values)
        elif _stage(engine) == 3:
            _write_partitioned(parameter, values)
        else:
            _write_sharded(parameter, values)
    for moments in _base_optimizer(engine).state.values():
        # A tensor for each partition: one that is shared would count several times per step.
        moments["step"] = torch.full_like(torch.as_tensor(moments["step"], dtype=torch.float32), step)


def read_weights(engine: Any) -> dict[str, Tensor]:
    """``{parameter: weight}``, fp32 copies of what the optimizer updates, whole on every rank."""
    _ensure_moments(engine)
    return {
        name: (safe_get_full_fp32_param(p) if _stage(engine) else p.data).detach().float().clone()
        for name, p in engine.module.named_parameters()
    }


def write_updated_weights(engine: Any, weights: dict[str, Tensor]) -> None:
    """Lay out ``weights`` where the optimizer updates them, and leave the copy that the forward reads as it is."""
    _ensure_moments(engine)
    for name, parameter in engine.module.named_parameters():
        value = weights[name].to(parameter.device)
        if _stage(engine) == 0:
            parameter.data.copy_(value)
        elif _stage(engine) == 3:
            safe_set_local_fp32_param(parameter, _own_part(parameter, value))
        else:
            safe_set_full_fp32_param(parameter, value)


def forward_weights(engine: Any) -> dict[str, Tensor]:
    """Whole copies of the weights that the forward reads, in their own precision."""
    weights = {}
    for name, parameter in engine.module.named_parameters():
        with _whole(engine, parameter):
            weights[name] = parameter.data.clone()
    return weights


def write_forward_weights(engine: Any, weights: dict[str, Tensor]) -> None:
    """Change what the forward reads; under ZeRO what the optimizer updates stays."""
    for name, parameter in engine.module.named_parameters():
        with _whole(engine, parameter, changed=True):
            parameter.data.copy_(weights[name].view_as(parameter))


def _whole(engine: Any, parameter: nn.Parameter, *, changed: bool = False) -> AbstractContextManager[Any]:
    if _stage(engine) < 3:
        return nullcontext()
    return deepspeed.zero.GatheredParameters([parameter], modifier_rank=0 if changed else None)


def parameter_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """The whole parameter's shape; under ZeRO-3 the tensor itself is empty between uses."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _stage(engine: Any) -> int:
    return int(engine.zero_optimization_stage())


def _base_optimizer(engine: Any) -> torch.optim.Optimizer:
    """The torch optimizer below DeepSpeed's wrappers."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def _ensure_moments(engine: Any) -> None:
    """Create Adam's state where no step has been taken yet: getters and setters need it."""
    zero, base = engine.optimizer, _base_optimizer(engine)
    for flat in updated_tensors(engine):
        if not base.state.get(flat):
            base.state[flat] = {
                "step": torch.zeros((), dtype=torch.float32),
                "exp_avg": torch.zeros_like(flat),
                "exp_avg_sq": torch.zeros_like(flat),
            }
    if hasattr(zero, "_hp_optimizer_states_linked"):
        # DeepSpeed links parameters to their state once, after the first group's step; link all of them.
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()


def updated_tensors(engine: Any) -> list[Tensor]:
    """What the base optimizer updates: flat partitions under ZeRO, the parameters themselves without."""
    if _stage(engine) == 0:
        return [p for group in _base_optimizer(engine).param_groups for p in group["params"]]
    if _stage(engine) == 3:
        return list(engine.optimizer.fp32_partitioned_groups_flat)
    return list(engine.optimizer.single_partition_of_fp32_groups)


def _read_plain(engine: Any, parameter: nn.Parameter) -> dict[str, Tensor]:
    moments = _base_optimizer(engine).state[parameter]
    return {"weight": parameter.data, **{key: moments[key] for key in MOMENTS}}


def _read_sharded(parameter: nn.Parameter) -> dict[str, Tensor]:
    moments = {key: safe_get_full_optimizer_state(parameter, key) for key in MOMENTS}
    return {"weight": safe_get_full_fp32_param(parameter), **moments}


def _write_plain(engine: Any, parameter: nn.Parameter, values: dict[str, Tensor]) -> None:
    moments = _base_optimizer(engine).state[parameter]
    parameter.data.copy_(values["weight"])
    for key in MOMENTS:
        moments[key].copy_(values[key])


def _write_sharded(parameter: nn.Parameter, values: dict[str, Tensor]) -> None:
    safe_set_full_fp32_param(parameter, values["weight"])
    for key in MOMENTS:
        safe_set_full_optimizer_state(parameter, values[key], key)
    # The setter leaves the copy that the forward reads as it was.
    parameter.data.copy_(values["weight"])


def _own_part(parameter: Any, value: Tensor) -> Tensor:
    # The full setters fail where a size does not divide by the world size: pad, and set this rank's slice.
    rank, world_size = dist.get_rank(), dist.get_world_size()
    share = -(-parameter.ds_numel // world_size)
    padded = torch.nn.functional.pad(value.flatten(), (0, share * world_size - value.numel()))
    return padded[rank * share : (rank + 1) * share].clone()


def _write_partitioned(parameter: Any, values: dict[str, Tensor]) -> None:
    safe_set_local_fp32_param(parameter, _own_part(parameter, values["weight"]))
    for key in MOMENTS:
        safe_set_local_optimizer_state(parameter, _own_part(parameter, values[key]), key)
    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        parameter.data.copy_(values["weight"].view_as(parameter))
