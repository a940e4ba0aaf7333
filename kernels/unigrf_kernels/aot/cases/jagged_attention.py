"""The shipped configurations of jagged attention, for the AOT resource check."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_kernels.aot.case import CompileCase, compile_case
from unigrf_kernels.ops.jagged_attention.launch import (
    Call,
    forward_arguments,
    key_gradient_arguments,
    query_gradient_arguments,
)
from unigrf_kernels.ops.jagged_attention.triton_forward import forward_kernel
from unigrf_kernels.ops.jagged_attention.triton_key_gradient import key_gradient_kernel
from unigrf_kernels.ops.jagged_attention.triton_query_gradient import query_gradient_kernel
from unigrf_kernels.ops.jagged_attention.triton_schedule import Schedule, choose_schedule
from unigrf_kernels.ops.jagged_attention.triton_tile_tables import TABLES


@dataclass(frozen=True)
class Variant:
    """Which branches of the kernels a configuration compiles."""

    name: str
    softmax: bool = False
    group: int = 1
    biases: bool = False
    candidates: bool = False
    window: bool = False


PLAIN = Variant("silu")
BIASES = Variant("silu biases", biases=True)
EVERYTHING = Variant("silu biases candidates window", biases=True, candidates=True, window=True)
SOFTMAX = Variant("softmax grouped", softmax=True, group=4)
SOFTMAX_EVERYTHING = Variant(
    "softmax grouped biases candidates window",
    softmax=True,
    group=4,
    biases=True,
    candidates=True,
    window=True,
)

NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


# All tiles, with what asks most of them. Types of 16 bits share their tiles and differ in the names of
# instructions; single precision has one table, with and without biases.
_SHIPPED = {
    torch.bfloat16: (PLAIN, BIASES, EVERYTHING, SOFTMAX, SOFTMAX_EVERYTHING),
    torch.float16: (SOFTMAX_EVERYTHING,),
    torch.float32: (PLAIN, EVERYTHING, SOFTMAX, SOFTMAX_EVERYTHING),
}


def shipped_configurations() -> list[CompileCase]:
    """Forward and both backward kernels of every tile table entry, in the variants of `_SHIPPED`."""
    cases = []
    for arch in TABLES:
        if arch == "other":
            continue
        for dtype, variants in _SHIPPED.items():
            for head_dim in (16, 32, 64, 128, 256):
                for variant in variants:
                    biases = {"position_bias": variant.biases, "time_bias": variant.biases}
                    schedule = choose_schedule(arch, dtype, head_dim, **biases)
                    cases += kernel_cases(variant, dtype, head_dim, schedule, (arch,))
    return cases


def meta_call(variant: Variant, dtype: torch.dtype, head_dim: int, schedule: Schedule) -> Call:
    """A call with shapes but no values. Sizes that a launch cannot promise are multiples of nothing."""
    num_tokens, num_heads, num_sequences = 100_003, 4, 511

    def vector(size: int) -> Tensor:
        return torch.empty(size, dtype=torch.int64, device="meta")

    def table(columns: int) -> Tensor:
        return torch.empty((num_heads, columns), dtype=torch.float32, device="meta")

    def rows(heads: int) -> Tensor:
        # A slice of a fused projection, as a model has it.
        projection = torch.empty((num_tokens, 4 * num_heads, head_dim), dtype=dtype, device="meta")
        return projection[:, :heads]

    biases = variant.biases
    return Call(
        q=rows(num_heads),
        k=rows(num_heads // variant.group),
        v=rows(num_heads // variant.group),
        offsets=vector(num_sequences + 1),
        num_candidates=vector(num_sequences) if variant.candidates else None,
        position_bias=table(2049) if biases else None,
        time_bias=table(128) if biases else None,
        query_times=vector(num_tokens) if biases else None,
        key_times=vector(num_tokens) if biases else None,
        softmax=variant.softmax,
        scale=0.1,
        inverse_length=1.0 if variant.softmax else 0.01,
        window=100 if variant.window else None,
        schedule=schedule,
    )


def kernel_cases(
    variant: Variant, dtype: torch.dtype, head_dim: int, schedule: Schedule, archs: tuple[str, ...]
) -> list[CompileCase]:
    """Forward and both backward kernels of one variant."""
    call = meta_call(variant, dtype, head_dim, schedule)
    num_tokens, num_heads, _ = call.q.shape

    def buffer(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    work = buffer(1000, 2, dtype=torch.int32)
    out = buffer(*call.q.shape, dtype=dtype)
    k_grad = buffer(*call.k.shape, dtype=dtype)
    line = buffer(num_heads, num_tokens) if variant.softmax else None
    has_rows = variant.biases
    position_rows = buffer(7, num_heads, 2049 + variant.candidates) if has_rows else None
    time_rows = buffer(7, num_heads, 128) if has_rows else None
    extents = buffer(7, dtype=torch.int32) if has_rows else None
    kernels = (
        ("forward", forward_kernel, schedule.forward, forward_arguments(call, work, out, line)),
        (
            "key gradient",
            key_gradient_kernel,
            schedule.key_gradient,
            key_gradient_arguments(call, work, out, line, line, k_grad, k_grad),
        ),
        (
            "query gradient",
            query_gradient_kernel,
            schedule.query_gradient,
            query_gradient_arguments(
                call, work, out, line, line, out, position_rows, time_rows, extents, first_item=0
            ),
        ),
    )
    tensor_cores = dtype != torch.float32 or schedule.precision == "tf32"
    return [
        compile_case(
            f"attention {name} {NAMES[dtype]} D{head_dim} {variant.name} {tile.rows}x{tile.cols}",
            kernel,
            arguments,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            expects_tensor_cores=tensor_cores,
            archs=archs,
        )
        for name, kernel, tile, arguments in kernels
    ]
