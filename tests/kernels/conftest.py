"""An interpreter that computes as chips do, for every operator's kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.kernels.interpreter import patch_language_once

if not torch.cuda.is_available():
    patch_language_once()


@pytest.fixture
def chip_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Teach Triton's interpreter three things every chip does.

    It keeps bfloat16 as 16-bit patterns and multiplies the patterns; it cuts digits off where chips round to
    bfloat16; and its products come from a library that adds up A B and (B^T A^T)^T in different orders, whereas
    a matrix unit adds along the inner dimension whichever operand comes first. Adding in float64 hides the order.
    """
    if torch.cuda.is_available():
        return
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cast = InterpreterBuilder.cast_impl

    def exact(handle: Any) -> Any:
        if handle.dtype.scalar == tl.bfloat16:
            return (handle.data.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return handle.data.astype(np.float64)

    def dot(self: Any, a: Any, b: Any, sum_so_far: Any, *precision: Any) -> Any:
        total = exact(a) @ exact(b) + sum_so_far.data
        return TensorHandle(total.astype(sum_so_far.data.dtype), sum_so_far.dtype.scalar)

    def rounding_cast(self: Any, source: Any, target: Any) -> Any:
        if source.dtype.scalar != tl.float32 or target.scalar != tl.bfloat16:
            return cast(self, source, target)
        rounded = torch.from_numpy(np.ascontiguousarray(source.data)).to(torch.bfloat16)
        return TensorHandle(rounded.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", dot)
    monkeypatch.setattr(InterpreterBuilder, "cast_impl", rounding_cast)
    monkeypatch.setattr(InterpreterBuilder, "create_fp_trunc", rounding_cast)
