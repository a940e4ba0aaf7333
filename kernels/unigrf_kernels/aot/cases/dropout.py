"""The shipped configurations of seeded dropout, for the AOT resource check."""

from __future__ import annotations

import torch

from unigrf_kernels.aot.case import CompileCase, compile_case
from unigrf_kernels.ops.dropout.triton_dropout import NUM_WARPS, dropout_arguments, dropout_kernel


def shipped_configurations() -> list[CompileCase]:
    """The one kernel, in both usual dtypes."""
    seed = torch.empty((), dtype=torch.int64, device="meta")
    cases = []
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        x = torch.empty((100_003, 50), dtype=dtype, device="meta")
        cases.append(
            compile_case(
                f"dropout {name}",
                dropout_kernel,
                dropout_arguments(x, x, seed, 0.2),
                num_warps=NUM_WARPS,
                num_stages=1,
                expects_tensor_cores=False,
            )
        )
    return cases
