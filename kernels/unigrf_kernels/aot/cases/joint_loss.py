"""The shipped configurations of the joint loss, for the AOT resource check."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_kernels.aot.case import CompileCase, compile_case
from unigrf_kernels.ops.joint_loss.launch import (
    direction_arguments,
    finish_arguments,
    merge_arguments,
    negative_gradient_arguments,
    ranking_arguments,
    reduce_arguments,
    stream_arguments,
    user_negative_gradient_arguments,
)
from unigrf_kernels.ops.joint_loss.plan import Call, ceil_div, new_pair_buffers, plan_call
from unigrf_kernels.ops.joint_loss.problem import NeedsGrad, Problem, empty_result
from unigrf_kernels.ops.joint_loss.schedule import Tile, choose_schedule
from unigrf_kernels.ops.joint_loss.triton_finish import finish_kernel
from unigrf_kernels.ops.joint_loss.triton_negative_gradient import (
    negative_gradient_kernel,
    user_negative_gradient_kernel,
)
from unigrf_kernels.ops.joint_loss.triton_ranking import ranking_kernel
from unigrf_kernels.ops.joint_loss.triton_rows import direction_kernel, merge_kernel, reduce_kernel
from unigrf_kernels.ops.joint_loss.triton_stream import stream_kernel

_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
_ARCHS = ("sm_80", "sm_90", "sm_100", "gfx942")


@dataclass(frozen=True)
class Variant:
    """Which branches of the kernels a configuration compiles."""

    name: str
    normalize: bool = True
    extras: bool = False
    """Weights, logQ correction, negative mask and per-user negatives."""
    gradients: bool = True


PLAIN = Variant("normalised")
EXTRAS = Variant("normalised, all inputs", extras=True)
RAW = Variant("not normalised", normalize=False)
FORWARD = Variant("normalised, no gradients", gradients=False)


def shipped_configurations() -> list[CompileCase]:
    """Every cell of the tile tables with its plain variant, and the other variants at a few widths."""
    cases = []
    for arch in _ARCHS:
        for width in (16, 32, 50, 64, 128, 200, 256, 512):
            cases += _cases(arch, torch.bfloat16, width, PLAIN)
        for width in (16, 32, 64, 128, 256):
            cases += _cases(arch, torch.float32, width, PLAIN)
        for width in (64, 256):
            cases += _cases(arch, torch.float16, width, PLAIN)
        for width in (64, 128, 256, 512):
            cases += _cases(arch, torch.bfloat16, width, EXTRAS)
        cases += _cases(arch, torch.bfloat16, 128, RAW)
        cases += _cases(arch, torch.bfloat16, 128, FORWARD)
        cases += _cases(arch, torch.float32, 512, EXTRAS)
    return cases


def meta_call(arch: str, dtype: torch.dtype, width: int, variant: Variant) -> Call:
    """A call with shapes but no values. Sizes that a launch cannot promise are multiples of nothing."""
    pairs, columns, users, per_user, tasks, num_rows = 50_001, 8_191, 999, 7, 3, 100_003

    def integers(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int64, device="meta")

    def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    extras = variant.extras
    problem = Problem(
        hidden=numbers(num_rows, width, dtype=dtype),
        positives=numbers(pairs, width, dtype=dtype),
        negatives=numbers(columns, width, dtype=dtype),
        user_negatives=numbers(users, per_user, width, dtype=dtype) if extras else None,
        head_weight=numbers(tasks, width, dtype=dtype),
        head_bias=numbers(tasks, dtype=dtype),
        retrieval_rows=integers(pairs),
        positive_ids=integers(pairs),
        negative_ids=integers(columns),
        retrieval_weights=numbers(pairs) if extras else None,
        positive_log_q=numbers(pairs) if extras else None,
        negative_log_q=numbers(columns) if extras else None,
        retrieval_users=integers(pairs) if extras else None,
        user_negative_ids=integers(users, per_user) if extras else None,
        negative_mask=numbers(users, ceil_div(columns, 32), dtype=torch.int32) if extras else None,
        negative_mask_rows=integers(pairs) if extras else None,
        ranking_rows=integers(pairs),
        labels=numbers(pairs, tasks),
        task_weights=numbers(tasks) if extras else None,
        temperature=0.05,
        normalize=variant.normalize,
    )
    needed = variant.gradients
    needs_grad = NeedsGrad(needed, needed, needed, needed and extras, needed, needed)
    return plan_call(problem, needs_grad, choose_schedule(arch, dtype, width, num_processors=132))


def _cases(arch: str, dtype: torch.dtype, width: int, variant: Variant) -> list[CompileCase]:
    call = meta_call(arch, dtype, width, variant)
    problem, schedule = call.problem, call.schedule
    buffers, result = new_pair_buffers(call), empty_result(problem, call.needs_grad)
    line, queries, vector_tile = buffers.losses, buffers.queries, schedule.vectors
    head = problem.head_weight.float() if variant.gradients else None
    shared, user_negatives = problem.negatives, problem.user_negatives
    gathering = direction_arguments(call, problem.hidden, problem.retrieval_rows, queries, 1.0)
    ranking = ranking_arguments(call, result, buffers.sq_norms, line, line, head, head)
    launches = [
        ("directions", direction_kernel, gathering, vector_tile),
        ("stream", stream_kernel, stream_arguments(call, buffers, shared), schedule.stream),
        ("finish", finish_kernel, finish_arguments(call, buffers, user_negatives, result), vector_tile),
        ("ranking", ranking_kernel, ranking, schedule.ranking),
    ]
    if variant.gradients:
        partials, order = line.new_empty(7, *shared.shape), problem.retrieval_rows
        columns = negative_gradient_arguments(call, buffers, shared, partials)
        reduction = reduce_arguments(call, partials, shared, result.negatives_grad)
        merging = merge_arguments(call, order.int(), order, result.retrieval_row_grad, line)
        launches += [
            ("negative gradient", negative_gradient_kernel, columns, schedule.negatives),
            ("reduce", reduce_kernel, reduction, vector_tile),
            ("merge", merge_kernel, merging, vector_tile),
        ]
        if user_negatives is not None:
            columns = user_negative_gradient_arguments(call, buffers, order, order, user_negatives.float())
            launches.append(
                ("user negative gradient", user_negative_gradient_kernel, columns, schedule.user_negatives)
            )
    return [_case(arch, dtype, width, variant, *each) for each in launches]


def _case(
    arch: str,
    dtype: torch.dtype,
    width: int,
    variant: Variant,
    name: str,
    kernel: object,
    arguments: dict[str, object],
    tile: Tile,
) -> CompileCase:
    shape = f"{tile.rows}x{tile.columns}" if tile.columns else f"{tile.rows}"
    return compile_case(
        f"joint loss {name} {_NAMES[dtype]} D{width} {variant.name} {shape}",
        kernel,
        arguments,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        expects_tensor_cores=name in ("stream", "negative gradient") and dtype != torch.float32,
        archs=(arch,),
    )
