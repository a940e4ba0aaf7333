"""What the AOT resource check compiles: one kernel with the types and constants of one launch.

Every operator lists its own cases in `aot/cases/<operator>.py`, in a function `shipped_configurations()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

_POINTER_TYPES = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.int16: "*i16",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.bool: "*i1",
}


@dataclass(frozen=True, kw_only=True)
class CompileCase:
    """One shipped configuration of one kernel.

    Attributes:
        label: what a reader of the table sees, such as `jagged_attention forward silu bf16 D128`.
        kernel: the `@triton.jit` function.
        signature: Triton type of every argument that is not a constant, such as `*bf16`, `i64`, `fp32`.
        constexprs: value of every compile-time constant.
        num_warps: warps per program.
        num_stages: depth of the software pipeline.
        expects_tensor_cores: the kernel's loops must contain matrix instructions.
        divisible_by_16: the arguments of `signature` that the launch knows to be multiples of 16.
        archs: the architectures that ship this configuration; empty means all of them.
    """

    label: str
    kernel: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any]
    num_warps: int
    num_stages: int
    expects_tensor_cores: bool
    divisible_by_16: frozenset[str] = frozenset()
    archs: tuple[str, ...] = ()


def compile_case(
    label: str,
    kernel: Any,
    arguments: Mapping[str, Any],
    *,
    num_warps: int,
    num_stages: int,
    expects_tensor_cores: bool,
    archs: tuple[str, ...] = (),
) -> CompileCase:
    """The case of the launch `kernel[grid](**arguments)`, specialised as the just-in-time compiler would.

    Give the dictionary that the launcher itself uses, with meta tensors for the pointers, so that the table
    and the launch cannot drift apart. An integer 1 and None become constants, a multiple of 16 is known as
    such; torch allocations are aligned, so pointers always are.

    Raises:
        ValueError: an argument of the kernel is missing or unknown.
    """
    names = [parameter.name for parameter in kernel.params]
    if set(names) != set(arguments):
        odd = sorted(set(names) ^ set(arguments))
        raise ValueError(f"{label}: arguments must be those of {kernel.__name__}, differing in {odd}")
    signature: dict[str, str] = {}
    constexprs: dict[str, Any] = {}
    divisible = set()
    for parameter in kernel.params:
        value = arguments[parameter.name]
        specialise = not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (specialise and _is_integer(value) and value == 1):
            constexprs[parameter.name] = value
            continue
        signature[parameter.name] = _triton_type(parameter.name, value)
        if specialise and (isinstance(value, torch.Tensor) or (_is_integer(value) and value % 16 == 0)):
            divisible.add(parameter.name)
    return CompileCase(
        label=label,
        kernel=kernel,
        signature=signature,
        constexprs=constexprs,
        num_warps=num_warps,
        num_stages=num_stages,
        expects_tensor_cores=expects_tensor_cores,
        divisible_by_16=frozenset(divisible),
        archs=archs,
    )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _triton_type(name: str, value: object) -> str:
    if isinstance(value, torch.Tensor):
        return _POINTER_TYPES[value.dtype]
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, int):
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    if isinstance(value, float):
        return "fp32"
    raise ValueError(f"{name} must be a tensor, a number or None, got {type(value).__name__}")
