"""What the HSTU layer operators are timed on, how much work that counts, and the usual baselines."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unigrf_kernels.bench.implementations import compiled, of_this_package
from unigrf_kernels.bench.task import Implementation, Operands, Task, Work
from unigrf_kernels.ops.hstu_layer.api import gated_norm_dropout, norm_project_silu

DROPOUT = 0.2
_EPS = 1e-6


def make_tasks(device: torch.device, dtype: torch.dtype, want_compiled: bool) -> list[Task]:
    """Tokens by model width by width of one part, as training has them."""
    if device.type == "cpu":
        shapes = [(27_000, 50, 50), (51_000, 50, 50)]
    else:
        shapes = [(tokens, width, width) for tokens in (32_768, 262_144) for width in (256, 512, 1024)]
    make = (_projection, partial(_gate, dropout=0.0), partial(_gate, dropout=DROPOUT))
    return [task(*shape, device, dtype, want_compiled) for shape in shapes for task in make]


def _projection(
    tokens: int, width: int, part: int, device: torch.device, dtype: torch.dtype, want_compiled: bool
) -> Task:
    def operands() -> Operands:
        x, gamma, beta, weight, *upstream = _normal(
            device, dtype, (tokens, width), (width,), (width,), (width, 4 * part), *[(tokens, part)] * 4
        )
        return Operands((x, gamma, beta, weight), (x, gamma, beta, weight), [g.detach() for g in upstream])

    def call(data: Any, implementation: str) -> tuple[Tensor, ...]:
        x, gamma, beta, weight = data
        return norm_project_silu(x, gamma, beta, weight, (part,) * 4, eps=_EPS, implementation=implementation)

    def eager(data: Any) -> tuple[Tensor, ...]:
        x, gamma, beta, weight = data
        parts = F.silu(F.layer_norm(x, (width,), gamma, beta, _EPS) @ weight).split(part, dim=1)
        return tuple(piece.contiguous() for piece in parts)

    flops, row = 2 * tokens * width * 4 * part, tokens * dtype.itemsize
    work = {
        "forward": Work(flops, row * (width + 4 * part)),
        "backward": Work(2 * flops, row * (2 * width + 4 * part)),
    }
    implementations = [
        *of_this_package(call, device),
        Implementation("eager", eager),
        compiled("eager, compiled", eager, want_compiled),
    ]
    shape = f"{tokens} tokens {width} -> 4 x {part}"
    return Task("norm_project_silu", shape, operands, implementations, work, "gemm")


def _gate(
    tokens: int,
    _: int,
    width: int,
    device: torch.device,
    dtype: torch.dtype,
    want_compiled: bool,
    *,
    dropout: float,
) -> Task:
    def operands() -> Operands:
        *leaves, upstream = _normal(
            device, dtype, (tokens, width), (tokens, width), (width,), (width,), (tokens, width)
        )
        return Operands(leaves, leaves, [upstream.detach()])

    def call(data: Any, implementation: str) -> Tensor:
        return gated_norm_dropout(*data, dropout=dropout, seed=1, eps=_EPS, implementation=implementation)

    def eager(data: Any) -> Tensor:
        attention, gate, gamma, beta = data
        return F.dropout(gate * F.layer_norm(attention, (width,), gamma, beta, _EPS), dropout)

    # PyTorch draws another mask than this package.
    same = dropout == 0.0
    elements = tokens * width * dtype.itemsize
    implementations = [
        *of_this_package(call, device),
        Implementation("eager", eager, comparable=same),
        compiled("eager, compiled", eager, want_compiled, comparable=same),
    ]
    return Task(
        "gated_norm_dropout",
        f"{tokens} tokens x {width} dropout {dropout}",
        operands,
        implementations,
        {"forward": Work(0, 3 * elements), "backward": Work(0, 5 * elements)},
        "copy",
    )


def _normal(device: torch.device, dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    return [torch.randn(shape, generator=generator, device=device).to(dtype).requires_grad_() for shape in shapes]
