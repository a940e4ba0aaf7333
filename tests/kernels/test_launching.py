"""Kernels are launched on the device of their tensors, and not at all on an empty grid."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from unigrf_kernels.ops.launching import launch_kernel


class RecordingKernel:
    """Stands for a kernel: notes the device that is current at each launch."""

    def __init__(self) -> None:
        self.current: list[Any] = [None]
        self.launches: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda **arguments: self.launches.append((grid, self.current[-1], sorted(arguments)))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> RecordingKernel:
    recording = RecordingKernel()

    class Device:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            recording.current.append(self.device)

        def __exit__(self, *_: object) -> None:
            recording.current.pop()

    monkeypatch.setattr(torch.cuda, "device", Device)
    return recording


def test_device_of_the_tensors_is_current_during_the_launch(kernel: RecordingKernel) -> None:
    # The last of several; a machine without any lets tensors be faked on every one.
    device = torch.device("cuda", torch.cuda.device_count() - 1 if torch.cuda.is_available() else 1)
    with FakeTensorMode():
        x = torch.empty(3, device=device)
    launch_kernel(kernel, (2,), {"count": 3, "bias": None, "x": x}, num_warps=4)
    assert kernel.launches == [((2,), device, ["bias", "count", "num_warps", "x"])]
    assert kernel.current == [None]


def test_no_device_is_made_current_on_the_cpu(kernel: RecordingKernel) -> None:
    launch_kernel(kernel, (2, 5), {"x": torch.empty(3)})
    assert kernel.launches == [((2, 5), None, ["x"])]


def test_empty_grid_launches_nothing(kernel: RecordingKernel) -> None:
    launch_kernel(kernel, (2, 0), {"x": torch.empty(3)})
    assert kernel.launches == []
