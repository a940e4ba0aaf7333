"""What the Llama layer operators are timed on, how much work that counts, and the usual baselines."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unigrf_kernels.bench.implementations import compiled, of_this_package
from unigrf_kernels.bench.task import Implementation, Operands, Task, Work
from unigrf_kernels.ops.llama_layer.api import rms_norm, rotary, swiglu
from unigrf_kernels.ops.llama_layer.reference import reference_rotary

_EPS = 1e-6
_BASE = 10000.0
_LENGTH = 400


def make_tasks(device: torch.device, dtype: torch.dtype, want_compiled: bool) -> list[Task]:
    """Tokens by width, as training has them; heads of 64 or, on a CPU, of 32."""
    if device.type == "cpu":
        shapes = [(27_000, 64, 32)]
    else:
        shapes = [(tokens, width, 64) for tokens in (32_768, 262_144) for width in (256, 1024)]
    make = (_rms_norm, _swiglu, _rotary)
    return [task(*shape, device, dtype, want_compiled) for shape in shapes for task in make]


def _rms_norm(
    tokens: int, width: int, _: int, device: torch.device, dtype: torch.dtype, want_compiled: bool
) -> Task:
    def operands() -> Operands:
        x, weight, upstream = _normal(device, dtype, (tokens, width), (width,), (tokens, width))
        return Operands((x, weight), (x, weight), [upstream.detach()])

    def call(data: Any, implementation: str) -> Tensor:
        return rms_norm(*data, eps=_EPS, implementation=implementation)

    def eager(data: Any) -> Tensor:
        return F.rms_norm(data[0], (width,), data[1], _EPS)

    work = _traffic(tokens * width * dtype.itemsize, forward=2, backward=3)
    implementations = [
        *of_this_package(call, device),
        Implementation("F.rms_norm", eager),
        compiled("F.rms_norm, compiled", eager, want_compiled),
    ]
    return Task("rms_norm", f"{tokens} tokens x {width}", operands, implementations, work, "copy")


def _swiglu(
    tokens: int, width: int, _: int, device: torch.device, dtype: torch.dtype, want_compiled: bool
) -> Task:
    inner = 8 * width // 3

    def operands() -> Operands:
        gate, up, upstream = _normal(device, dtype, *[(tokens, inner)] * 3)
        return Operands((gate, up), (gate, up), [upstream.detach()])

    def call(data: Any, implementation: str) -> Tensor:
        return swiglu(*data, implementation=implementation)

    def eager(data: Any) -> Tensor:
        return F.silu(data[0]) * data[1]

    work = _traffic(tokens * inner * dtype.itemsize, forward=3, backward=5)
    implementations = [
        *of_this_package(call, device),
        Implementation("eager", eager),
        compiled("eager, compiled", eager, want_compiled),
    ]
    return Task("swiglu", f"{tokens} tokens x {inner}", operands, implementations, work, "copy")


def _rotary(
    tokens: int, width: int, head_dim: int, device: torch.device, dtype: torch.dtype, want_compiled: bool
) -> Task:
    heads = width // head_dim

    def operands() -> Operands:
        q, k, grad_q, grad_k = _normal(device, dtype, *[(tokens, heads, head_dim)] * 4)
        positions = torch.arange(tokens, device=device) % _LENGTH
        return Operands((q, k, positions), (q, k), [grad_q.detach(), grad_k.detach()])

    def call(data: Any, implementation: str) -> tuple[Tensor, Tensor]:
        return rotary(*data, base=_BASE, implementation=implementation)

    def eager(data: Any) -> tuple[Tensor, Tensor]:
        q, k, positions = data
        return reference_rotary(q, k, positions, _BASE)

    work = _traffic(2 * tokens * width * dtype.itemsize, forward=2, backward=2)
    implementations = [
        *of_this_package(call, device),
        Implementation("eager", eager),
        compiled("eager, compiled", eager, want_compiled),
    ]
    return Task("rotary", f"{tokens} tokens {heads}x{head_dim}", operands, implementations, work, "copy")


def _traffic(num_bytes: int, *, forward: int, backward: int) -> dict[str, Work]:
    return {"forward": Work(0, forward * num_bytes), "backward": Work(0, backward * num_bytes)}


def _normal(device: torch.device, dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    return [torch.randn(shape, generator=generator, device=device).to(dtype).requires_grad_() for shape in shapes]
