"""Where tests of this folder run, and memory that shows who reads it unwritten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from .cases import DEVICE


@pytest.fixture(autouse=True)
def on_device() -> Iterator[None]:
    with DEVICE:
        yield


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """PyTorch fills new memory with NaN (integers: the largest) while it promises deterministic results."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
