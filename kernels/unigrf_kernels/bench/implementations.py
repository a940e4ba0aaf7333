"""Implementations that are timed for several operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .task import Implementation, Run

NOT_COMPILED = "compiled implementations are timed on a GPU, on a CPU only with --compiled"


def of_this_package(
    call: Callable[[Any, str], Any], device: torch.device, torch_bytes: int = 0
) -> list[Implementation]:
    """This package's implementations: `call` takes the data and the name of one."""
    by_name = {name: Implementation(f"unigrf {name}", _bind(call, name)) for name in ("triton", "torch")}
    if device.type == "cuda":
        return [by_name["triton"], Implementation("unigrf torch", by_name["torch"].run, torch_bytes)]
    return [by_name["torch"]]


def compiled(name: str, run: Run, enabled: bool, bytes_needed: int = 0, comparable: bool = True) -> Implementation:
    """`run` under `torch.compile`."""
    if not enabled:
        return Implementation(name, refusal=NOT_COMPILED)
    return Implementation(name, torch.compile(run, dynamic=False), bytes_needed, comparable=comparable)


def _bind(call: Callable[[Any, str], Any], name: str) -> Run:
    return lambda data: call(data, name)
