"""An interpreter that computes as chips do, for every operator's kernels; the AOT resource check, begun early."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.kernels.aot_check import AotCheck

_AOT_CHECK = pytest.StashKey[AotCheck]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that needs the resource check comes last: until then its compilers use the idle core."""
    items.sort(key=lambda item: "hopper_check" in getattr(item, "fixturenames", ()))


def pytest_collection_finish(session: pytest.Session) -> None:
    # Minutes of compiling, for which the tests before it leave a core.
    needed = not session.config.option.collectonly
    if needed and any("hopper_check" in getattr(item, "fixturenames", ()) for item in session.items):
        session.config.stash[_AOT_CHECK] = AotCheck()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if check := session.config.stash.get(_AOT_CHECK, None):
        check.stop()


@pytest.fixture
def hopper_check(request: pytest.FixtureRequest) -> AotCheck:
    """The check, begun when the tests were collected."""
    return request.config.stash[_AOT_CHECK]


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
