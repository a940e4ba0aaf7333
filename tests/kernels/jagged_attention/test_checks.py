"""The contract: one row per error, and what is not an error."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from tests.kernels.exactness import TRITON_DEVICE
from unigrf_kernels.ops.jagged_attention import jagged_attention, plan_attention


def arguments(**changes: Any) -> dict[str, Any]:
    """A valid call of two sequences, 3 and 2 tokens, with everything that may be given."""
    valid = {
        "q": torch.zeros(5, 4, 8),
        "k": torch.zeros(5, 2, 8),
        "v": torch.zeros(5, 2, 8),
        "offsets": torch.tensor([0, 3, 5]),
        "scale": 1.0,
        "scaling_length": 5.0,
        "num_candidates": torch.tensor([1, 0]),
        "window": 2,
        "position_bias": torch.zeros(4, 6),
        "time_bias": torch.zeros(4, 7),
        "query_times": torch.arange(5),
        "key_times": torch.arange(5),
        "max_length": 3,
    }
    return {**valid, **changes}


ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"window": 2.5}, TypeError, "window must be an integer, got float"),
    ({"q": torch.zeros(5, 8)}, ValueError, "q must have shape [T, H, D], got [5, 8]"),
    ({"k": torch.zeros(4, 2, 8)}, ValueError, "k must have shape [5, Hkv, 8], got [4, 2, 8]"),
    ({"k": torch.zeros(5, 2, 9)}, ValueError, "k must have shape [5, Hkv, 8], got [5, 2, 9]"),
    ({"k": torch.zeros(5, 16)}, ValueError, "k must have shape [5, Hkv, 8], got [5, 16]"),
    ({"v": torch.zeros(5, 1, 8)}, ValueError, "v must have shape [5, 2, 8], got [5, 1, 8]"),
    (
        {"q": torch.zeros(5, 0, 8)},
        ValueError,
        "q must have at least one head and one dimension, got [5, 0, 8]",
    ),
    (
        {"k": torch.zeros(5, 3, 8), "v": torch.zeros(5, 3, 8)},
        ValueError,
        "heads of q must be a multiple of heads of k, got 4 and 3",
    ),
    (
        {"k": torch.zeros(5, 0, 8), "v": torch.zeros(5, 0, 8)},
        ValueError,
        "heads of q must be a multiple of heads of k, got 4 and 0",
    ),
    ({"q": torch.zeros(5, 4, 8, dtype=torch.int64)}, TypeError, "q must be floating point, got int64"),
    ({"k": torch.zeros(5, 2, 8).double()}, TypeError, "k must be float32 like q, got float64"),
    ({"v": torch.zeros(5, 2, 8).bfloat16()}, TypeError, "v must be float32 like q, got bfloat16"),
    ({"v": torch.zeros(5, 2, 8, device="meta")}, ValueError, "v must be on cpu, got meta"),
    ({"offsets": torch.zeros(2, 2).long()}, ValueError, "offsets must have shape [B + 1], got [2, 2]"),
    ({"offsets": torch.zeros(0).long()}, ValueError, "offsets must have shape [B + 1], got [0]"),
    ({"offsets": torch.tensor([0, 3, 5]).int()}, TypeError, "offsets must be int64, got int32"),
    ({"offsets": torch.tensor([1, 3, 5])}, ValueError, "offsets must start at 0, got 1"),
    ({"offsets": torch.tensor([0, 6, 5])}, ValueError, "offsets must not descend"),
    (
        {"offsets": torch.tensor([0, 3, 4]), "query_times": None, "key_times": None, "time_bias": None},
        ValueError,
        "offsets must end at 5, the number of tokens, got 4",
    ),
    ({"num_candidates": torch.tensor([1])}, ValueError, "num_candidates must have shape [2], got [1]"),
    ({"num_candidates": torch.tensor([1.0, 0])}, TypeError, "num_candidates must be int64, got float32"),
    (
        {"num_candidates": torch.tensor([4, 0])},
        ValueError,
        "num_candidates must lie between 0 and the length of each sequence",
    ),
    (
        {"num_candidates": torch.tensor([-1, 0])},
        ValueError,
        "num_candidates must lie between 0 and the length of each sequence",
    ),
    ({"window": 0}, ValueError, "window must be at least 1, got 0"),
    ({"max_length": -1}, ValueError, "max_length must not be negative, got -1"),
    ({"max_length": 2}, ValueError, "max_length must be at least 3, the longest sequence, got 2"),
    (
        {"query_times": None},
        ValueError,
        "query_times and key_times must be given together, query_times is missing",
    ),
    ({"key_times": None}, ValueError, "query_times and key_times must be given together, key_times is missing"),
    ({"query_times": torch.zeros(5)}, TypeError, "query_times must be int64, got float32"),
    ({"key_times": torch.arange(4)}, ValueError, "key_times must have shape [5], got [4]"),
    (
        {"query_times": torch.arange(4), "key_times": torch.arange(4)},
        ValueError,
        "query_times must have shape [5], got [4]",
    ),
    (
        {"query_times": None, "key_times": None},
        ValueError,
        "time_bias needs query_times and key_times, got None",
    ),
    ({"position_bias": torch.zeros(3, 6)}, ValueError, "position_bias must have shape [4, P], got [3, 6]"),
    ({"position_bias": torch.zeros(4, 0)}, ValueError, "position_bias must have shape [4, P], got [4, 0]"),
    ({"position_bias": torch.zeros(4)}, ValueError, "position_bias must have shape [4, P], got [4]"),
    ({"position_bias": torch.zeros(4, 6).long()}, TypeError, "position_bias must be floating point, got int64"),
    ({"time_bias": torch.zeros(4, 7, 1)}, ValueError, "time_bias must have shape [4, num_buckets], got [4, 7, 1]"),
    ({"time_bias": torch.zeros(4, 7, device="meta")}, ValueError, "time_bias must be on cpu, got meta"),
    ({"activation": "relu"}, ValueError, "activation must be one of silu, softmax, got 'relu'"),
    ({"scale": float("nan")}, ValueError, "scale must be finite, got nan"),
    ({"scaling_length": None}, ValueError, "scaling_length must be a positive number for silu, got None"),
    ({"scaling_length": 0.0}, ValueError, "scaling_length must be a positive number for silu, got 0.0"),
    ({"activation": "softmax"}, ValueError, "scaling_length must be None for softmax, got 5.0"),
    (
        {"implementation": "fast"},
        ValueError,
        "jagged_attention: implementation must be one of auto, triton, torch, reference, got 'fast'",
    ),
]


@pytest.mark.parametrize(("changes", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_each_error(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        jagged_attention(**arguments(**changes))


def test_the_unchanged_call_is_valid() -> None:
    assert jagged_attention(**arguments()).shape == (5, 4, 8)


def test_times_without_a_time_bias_are_no_error() -> None:
    """Layers with and without a time bias may share a plan."""
    assert jagged_attention(**arguments(time_bias=None)).shape == (5, 4, 8)


def test_triton_on_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"^jagged_attention: implementation 'triton' needs CUDA tensors"):
        jagged_attention(**arguments(implementation="triton"))


STRUCTURE = ("num_candidates", "window", "query_times", "key_times", "max_length")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"offsets": torch.tensor([0, 3, 5])},
            "offsets must be the tensor that plan was made for, got another one",
        ),
        (
            {"num_candidates": torch.tensor([1, 0])},
            "num_candidates must be the tensor that plan was made for, got another one",
        ),
        ({"key_times": torch.arange(5)}, "key_times must be the tensor that plan was made for, got another one"),
        ({"window": 3}, "window must be 2 like plan's, got 3"),
        ({"max_length": 4}, "max_length must be 3 like plan's, got 4"),
    ],
)
def test_a_plan_of_another_batch_is_refused(changes: dict[str, Any], message: str) -> None:
    valid = arguments()
    plan = plan_attention(valid["offsets"], **{name: valid[name] for name in STRUCTURE})
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        jagged_attention(**{**valid, **changes}, plan=plan)
    assert jagged_attention(**valid, plan=plan).shape == (5, 4, 8)


def test_a_plan_is_checked_when_it_is_made() -> None:
    with pytest.raises(ValueError, match=r"^offsets must not descend$"):
        plan_attention(torch.tensor([0, 6, 5]))


def test_triton_takes_three_dtypes_and_heads_of_256() -> None:
    offsets = torch.tensor([0, 3], device=TRITON_DEVICE)
    wide = torch.zeros(3, 1, 257, device=TRITON_DEVICE)
    double = torch.zeros(3, 1, 8, dtype=torch.float64, device=TRITON_DEVICE)
    options: dict[str, Any] = {"scale": 1.0, "scaling_length": 5.0}
    with pytest.raises(ValueError, match="at most 256 dimensions a head for Triton, got 257"):
        jagged_attention(wide, wide, wide, offsets, **options, implementation="triton")
    with pytest.raises(TypeError, match="float32, bfloat16 or float16 for Triton, got float64"):
        jagged_attention(double, double, double, offsets, **options, implementation="triton")
    for q in (wide, double):
        assert jagged_attention(q, q, q, offsets, **options, implementation="torch").shape == q.shape
