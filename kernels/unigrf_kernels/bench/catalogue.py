"""The operators that can be timed and where their shapes come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

import torch

from .task import Task

MakeTasks = Callable[[torch.device, torch.dtype, bool], list[Task]]
"""Called with device, dtype, and whether to time compiled implementations."""

OPERATORS = {
    "jagged_attention": "unigrf_kernels.bench.cases.jagged_attention",
    "joint_loss": "unigrf_kernels.bench.cases.joint_loss",
    "hstu_layer": "unigrf_kernels.bench.cases.hstu_layer",
    "llama_layer": "unigrf_kernels.bench.cases.llama_layer",
    "dropout": "unigrf_kernels.bench.cases.dropout",
}
"""By name, the module whose `make_tasks` makes the operator's tasks."""


def find_tasks(
    operators: Sequence[str], words: str, device: torch.device, dtype: torch.dtype, compiled: bool
) -> list[Task]:
    """The tasks of `operators` whose shape contains all of `words`.

    Compiled implementations are timed on a GPU, or where asked for: on a CPU their compilation takes minutes.
    """
    tasks: list[Task] = []
    for name in operators:
        make_tasks: MakeTasks = import_module(OPERATORS[name]).make_tasks
        tasks.extend(make_tasks(device, dtype, compiled or device.type == "cuda"))
    return [task for task in tasks if all(word in f"{task.operator} {task.shape}" for word in words.split())]


# Published marks first, then what training runs most, then what only this package has.
MOST_TELLING = (
    "jagged_attention 4x128 T=4096 B=32 uniform silu",
    "jagged_attention 4x128 T=4096 B=32 uniform silu biases",
    "joint_loss 32768 rows x 8192 negatives x 256",
    "jagged_attention 4x64 T=4096 B=32 uniform silu",
    "jagged_attention 4x256 T=4096 B=32 uniform silu",
    "norm_project_silu 262144 tokens 512 -> 4 x 512",
    "gated_norm_dropout 262144 tokens x 512 dropout 0.2",
    "jagged_attention 4x64 T=4096 B=32 uniform silu biases",
    "jagged_attention 4x128 T=4096 B=32 zipf silu biases",
    "jagged_attention 4x128 T=4096 B=32 uniform softmax",
    "jagged_attention 4x128 T=4096 B=32 uniform silu biases, spread times",
    "joint_loss 131072 rows x 65536 negatives x 64",
)


def most_telling_first(tasks: Sequence[Task]) -> list[Task]:
    """The same tasks, those first that a short run should not miss."""
    rank = {name: number for number, name in enumerate(MOST_TELLING)}
    return sorted(tasks, key=lambda task: rank.get(f"{task.operator} {task.shape}", len(rank)))
