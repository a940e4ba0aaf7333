"""The contract of ``joint_loss``: each rule once, with the message a caller gets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .problem import Problem
from .schedule import DTYPES, MAX_TASKS, MAX_WIDTH

_VECTORS = ("positives", "negatives", "user_negatives", "head_weight", "head_bias")
_NUMBERS = ("labels", "retrieval_weights", "positive_log_q", "negative_log_q", "task_weights")
_INTEGERS = {
    "retrieval_rows": torch.int64,
    "positive_ids": torch.int64,
    "negative_ids": torch.int64,
    "retrieval_users": torch.int64,
    "user_negative_ids": torch.int64,
    "ranking_rows": torch.int64,
    "negative_mask": torch.int32,
    "negative_mask_rows": torch.int64,
}


def check_problem(problem: Problem) -> None:
    """Raise on the first rule that ``problem`` breaks.

    Values are read only on the CPU: on a device that would wait for it.
    """
    _check_shapes(problem)
    _check_dtypes(problem)
    for name, tensor in _tensors(problem).items():
        if tensor.device != problem.hidden.device:
            raise ValueError(f"{name} must be on {problem.hidden.device} like hidden, got {tensor.device}")
    if not 0 < problem.temperature < math.inf:
        raise ValueError(f"temperature must be a positive number, got {problem.temperature}")
    _check_indices("retrieval_rows", problem.retrieval_rows, len(problem.hidden))
    _check_indices("ranking_rows", problem.ranking_rows, len(problem.hidden))
    if problem.retrieval_users is not None and problem.user_negatives is not None:
        _check_indices("retrieval_users", problem.retrieval_users, len(problem.user_negatives))
    if problem.negative_mask_rows is not None and problem.negative_mask is not None:
        _check_indices("negative_mask_rows", problem.negative_mask_rows, len(problem.negative_mask))


def check_limits(problem: Problem) -> None:
    """Raise on what the Triton kernels do not take."""
    if problem.hidden.dtype not in DTYPES:
        raise TypeError(
            "hidden must be bfloat16, float16 or float32 for implementation 'triton', "
            f"got {_dtype(problem.hidden)}; use 'torch'"
        )
    if problem.hidden.shape[1] > MAX_WIDTH:
        raise ValueError(
            f"hidden must have shape [T, D] with D up to {MAX_WIDTH} for implementation 'triton', "
            f"got {_shape(problem.hidden)}; use 'torch'"
        )
    if len(problem.head_bias) > MAX_TASKS:
        raise ValueError(
            f"head_bias must have shape [A] with A up to {MAX_TASKS} for implementation 'triton', "
            f"got {_shape(problem.head_bias)}; use 'torch'"
        )


def _check_shapes(problem: Problem) -> None:
    p = problem
    if p.hidden.dim() != 2 or p.hidden.shape[1] < 1:
        raise ValueError(f"hidden must have shape [T, D], got {_shape(p.hidden)}")
    width = p.hidden.shape[1]
    pairs = _check("retrieval_rows", p.retrieval_rows, "P")[0]
    _check("positives", p.positives, pairs, width)
    _check("positive_ids", p.positive_ids, pairs)
    columns = _check("negatives", p.negatives, "K", width)[0]
    _check("negative_ids", p.negative_ids, columns)
    ranking = _check("ranking_rows", p.ranking_rows, "R")[0]
    tasks = _check("head_weight", p.head_weight, "A", width)[0]
    _check("head_bias", p.head_bias, tasks)
    _check("labels", p.labels, ranking, tasks)
    _check("retrieval_weights", p.retrieval_weights, pairs)
    _check("positive_log_q", p.positive_log_q, pairs)
    _check("negative_log_q", p.negative_log_q, columns)
    _check("retrieval_users", p.retrieval_users, pairs)
    _check("task_weights", p.task_weights, tasks)
    _check_together(p, "user_negatives", "user_negative_ids", "retrieval_users")
    _check_together(p, "negative_mask", "negative_mask_rows")
    if p.user_negatives is not None:
        users, per_user, _ = _check("user_negatives", p.user_negatives, "U", "M", width)
        _check("user_negative_ids", p.user_negative_ids, users, per_user)
    _check("negative_mask", p.negative_mask, "V", -(-columns // 32))
    _check("negative_mask_rows", p.negative_mask_rows, pairs)


def _check_together(problem: Problem, *names: str) -> None:
    missing = [name for name in names if getattr(problem, name) is None]
    if 0 < len(missing) < len(names):
        raise ValueError(f"{' and '.join(names)} must be given together, {' and '.join(missing)} is missing")


def _check(name: str, tensor: Tensor | None, *expected: int | str) -> tuple[int, ...]:
    """The shape of ``tensor``, which must be ``expected``; a letter stands for any size."""
    if tensor is None:
        return ()
    sizes = tuple(tensor.shape)
    fits = len(sizes) == len(expected) and all(
        isinstance(size, str) or size == actual for size, actual in zip(expected, sizes, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} must have shape [{', '.join(map(str, expected))}], got {_shape(tensor)}")
    return sizes


def _check_dtypes(problem: Problem) -> None:
    if not problem.hidden.is_floating_point():
        raise TypeError(f"hidden must be floating point, got {_dtype(problem.hidden)}")
    for name, tensor in _tensors(problem).items():
        if name in _VECTORS and tensor.dtype != problem.hidden.dtype:
            raise TypeError(f"{name} must be {_dtype(problem.hidden)} like hidden, got {_dtype(tensor)}")
        if name in _NUMBERS and not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {_dtype(tensor)}")
        integer = _INTEGERS.get(name, tensor.dtype)
        if tensor.dtype != integer:
            raise TypeError(f"{name} must be {str(integer).removeprefix('torch.')}, got {_dtype(tensor)}")


def _check_indices(name: str, indices: Tensor, limit: int) -> None:
    readable = type(indices) is Tensor and indices.device.type == "cpu" and not torch.compiler.is_compiling()
    if not readable or indices.numel() == 0:
        return
    lowest, row_max = (int(bound) for bound in torch.aminmax(indices))
    if lowest < 0 or row_max >= limit:
        raise ValueError(f"{name} must lie in [0, {limit}), got {lowest} to {row_max}")


def _tensors(problem: Problem) -> dict[str, Tensor]:
    return {name: value for name, value in problem._asdict().items() if isinstance(value, Tensor)}


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
