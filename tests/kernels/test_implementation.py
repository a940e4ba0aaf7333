"""The rule that picks an implementation: explicit choices are obeyed or refused, never replaced."""

from __future__ import annotations

import pytest
import torch

from unigrf_kernels.ops.implementation import Implementation, resolve_implementation

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def compiled_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("auto", CPU, Implementation.TORCH),
        ("auto", CUDA, Implementation.TRITON),
        ("torch", CPU, Implementation.TORCH),
        ("torch", CUDA, Implementation.TORCH),
        ("triton", CUDA, Implementation.TRITON),
        ("reference", CPU, Implementation.REFERENCE),
        ("reference", CUDA, Implementation.REFERENCE),
        (Implementation.TORCH, CUDA, Implementation.TORCH),
    ],
)
def test_choice_by_name_and_device(name: str, device: torch.device, expected: Implementation) -> None:
    assert resolve_implementation("op", name, device) is expected


def test_auto_takes_torch_on_cuda_when_the_operator_has_no_triton_kernel() -> None:
    available = (Implementation.TORCH, Implementation.REFERENCE)
    assert resolve_implementation("op", "auto", CUDA, available) is Implementation.TORCH


def test_triton_on_cpu_is_refused_and_never_replaced() -> None:
    expected = r"^op: implementation 'triton' needs CUDA tensors, got tensors on cpu; "
    with pytest.raises(ValueError, match=expected):
        resolve_implementation("op", "triton", CPU)


def test_triton_on_cpu_runs_in_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert resolve_implementation("op", "triton", CPU) is Implementation.TRITON
    assert resolve_implementation("op", "auto", CPU) is Implementation.TORCH


def test_unknown_name_lists_the_valid_ones() -> None:
    expected = r"^op: implementation must be one of auto, triton, torch, reference, got 'cuda'$"
    with pytest.raises(ValueError, match=expected):
        resolve_implementation("op", "cuda", CPU)


def test_a_missing_implementation_is_refused() -> None:
    expected = r"^op: implementation must be one of auto, torch, reference, got 'triton'$"
    with pytest.raises(ValueError, match=expected):
        resolve_implementation("op", "triton", CUDA, (Implementation.TORCH, Implementation.REFERENCE))
