"""Contenders that several operators have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .task import Contender, Run

NOT_COMPILED = "compiled contenders are timed on a GPU, on a CPU only with --compiled"


def own(call: Callable[[Any, str], Any], device: torch.device, torch_bytes: int = 0) -> list[Contender]:
    """This package's implementations: `call` takes the data and the name of one."""
    by_name = {name: Contender(f"unigrf {name}", _bind(call, name)) for name in ("triton", "torch")}
    if device.type == "cuda":
        return [by_name["triton"], Contender("unigrf torch", by_name["torch"].run, torch_bytes)]
    return [by_name["torch"]]


def compiled(name: str, run: Run, wanted: bool, bytes_needed: int = 0, comparable: bool = True) -> Contender:
    """`run` under `torch.compile`."""
    if not wanted:
        return Contender(name, refusal=NOT_COMPILED)
    return Contender(name, torch.compile(run, dynamic=False), bytes_needed, comparable=comparable)


def _bind(call: Callable[[Any, str], Any], name: str) -> Run:
    return lambda data: call(data, name)
