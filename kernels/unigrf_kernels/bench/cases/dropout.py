"""What seeded dropout is timed on, how much work that counts, and the usual baselines."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unigrf_kernels.bench.implementations import compiled, of_this_package
from unigrf_kernels.bench.task import Implementation, Operands, Task, Work
from unigrf_kernels.ops.dropout.api import seeded_dropout

DROPOUT = 0.2


def make_tasks(device: torch.device, dtype: torch.dtype, want_compiled: bool) -> list[Task]:
    """Tokens by width, as training has them."""
    if device.type == "cpu":
        shapes = [(27_000, 50), (51_000, 50)]
    else:
        shapes = [(tokens, width) for tokens in (32_768, 262_144) for width in (256, 1024)]
    return [_task(*shape, device, dtype, want_compiled) for shape in shapes]


def _task(tokens: int, width: int, device: torch.device, dtype: torch.dtype, want_compiled: bool) -> Task:
    def operands() -> Operands:
        generator = torch.Generator(device).manual_seed(0)
        x, upstream = (torch.randn(tokens, width, generator=generator, device=device).to(dtype) for _ in range(2))
        x.requires_grad_()
        return Operands(x, [x], [upstream])

    def call(x: Any, implementation: str) -> Tensor:
        return seeded_dropout(x, dropout=DROPOUT, seed=1, implementation=implementation)

    def eager(x: Any) -> Tensor:
        return F.dropout(x, DROPOUT)

    elements = tokens * width * dtype.itemsize
    implementations = [
        *of_this_package(call, device),
        Implementation("F.dropout", eager, comparable=False),
        compiled("F.dropout, compiled", eager, want_compiled, comparable=False),
    ]
    work = {"forward": Work(0, 2 * elements), "backward": Work(0, 2 * elements)}
    return Task("seeded_dropout", f"{tokens} tokens x {width}", operands, implementations, work, "copy")
