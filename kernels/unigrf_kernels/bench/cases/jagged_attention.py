"""Tasks of `jagged_attention`: its own cases, and the usual baselines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unigrf_kernels.bench.cases.jagged_attention_inputs import (
    BenchCase,
    BenchInputs,
    cpu_cases,
    gpu_cases,
    padded_eager,
)
from unigrf_kernels.bench.implementations import compiled, of_this_package
from unigrf_kernels.bench.task import Check, Implementation, Operands, Task, Work
from unigrf_kernels.ops.jagged_attention import jagged_attention

# Sequences of a CPU case; a quarter of them keeps the default run under a minute.
_CPU_SEQUENCES = 32
_BIASES = {"num_positions": 1024, "num_buckets": 64}


def make_tasks(device: torch.device, dtype: torch.dtype, want_compiled: bool) -> list[Task]:
    """On a GPU every shape plain, with both biases and with softmax; on a CPU the shapes that training has."""
    if device.type == "cpu":
        cases = [replace(case, lengths=case.lengths[:_CPU_SEQUENCES]) for case in cpu_cases()]
        return [_task(case, case.name, device, dtype, want_compiled) for case in cases]
    tasks = []
    for case in gpu_cases():
        biased = replace(case, **_BIASES)  # type: ignore[arg-type]
        softmax = replace(case, activation="softmax")
        spread = replace(biased, sessions=False)
        variants = [(case, "silu"), (biased, "silu biases"), (softmax, "softmax")]
        if "T=4096 B=32 uniform" in case.name:
            variants.append((spread, "silu biases, spread times"))
        for variant, name in variants:
            tasks.append(_task(variant, f"{case.name} {name}", device, dtype, want_compiled))
    return tasks


def _task(case: BenchCase, shape: str, device: torch.device, dtype: torch.dtype, want_compiled: bool) -> Task:
    def make() -> Operands:
        inputs = case.inputs(dtype, device)
        return Operands(inputs, inputs.leaves, [inputs.grad_out])

    num_bytes = case.smallest_bytes(dtype)
    # Backward reads q, k, v, the output's gradient and, for softmax, the output; it writes three gradients.
    work = {
        "forward": Work(case.forward_flops, num_bytes),
        "backward": Work(case.backward_flops, 2 * num_bytes),
    }
    implementations = of_this_package(_this_package, device, _score_bytes(case, dtype))
    if case.activation == "softmax":
        implementations += _softmax_baselines(case, device, dtype)
    else:
        implementations += _silu_baselines(case, dtype, want_compiled)
    return Task(
        "jagged_attention", shape, make, implementations, work, "gemm", lambda: _check(case, dtype, device)
    )


def _check(case: BenchCase, dtype: torch.dtype, device: torch.device) -> Check:
    """Three short sequences with the case's heads and biases, and what the reference makes of them in float64."""
    inputs = replace(case, lengths=(190, 64, 131)).inputs(dtype, device)
    leaves = [leaf.detach().double().requires_grad_() for leaf in inputs.leaves]
    q, k, v, *tables = leaves
    names = [name for name, value in inputs.options.items() if isinstance(value, Tensor)]
    options = {**inputs.options, **dict(zip(names, tables, strict=True))}
    out = _this_package(BenchInputs(q, k, v, inputs.plan, inputs.grad_out, options), "reference")
    exact = [out.detach(), *torch.autograd.grad(out, leaves, inputs.grad_out.double())]
    return Check(Operands(inputs, inputs.leaves, [inputs.grad_out]), exact)


def _this_package(inputs: BenchInputs, implementation: str) -> Tensor:
    return jagged_attention(
        inputs.q,
        inputs.k,
        inputs.v,
        inputs.plan.offsets,
        plan=inputs.plan,
        implementation=implementation,
        **inputs.options,
    )


def _score_bytes(case: BenchCase, dtype: torch.dtype) -> int:
    """Scores of all padded pairs, which autograd keeps several times over."""
    pairs = len(case.lengths) * case.num_heads * max(case.lengths) ** 2
    return 6 * pairs * dtype.itemsize


def _silu_baselines(case: BenchCase, dtype: torch.dtype, want_compiled: bool) -> list[Implementation]:
    needed = _score_bytes(case, dtype)
    return [
        Implementation("padded eager", padded_eager, needed),
        compiled("padded eager, compiled", padded_eager, want_compiled, needed),
        Implementation("FlexAttention", refusal="normalises with softmax, has no silu"),
    ]


def _softmax_baselines(case: BenchCase, device: torch.device, dtype: torch.dtype) -> list[Implementation]:
    on_gpu = device.type == "cuda"
    flex = (
        Implementation("FlexAttention, compiled", FlexAttention(), _block_mask_bytes(case))
        if on_gpu
        else Implementation("FlexAttention, compiled", refusal="has no gradients on a CPU")
    )
    nested = (
        Implementation("SDPA nested", sdpa_nested)
        if on_gpu
        else Implementation("SDPA nested", refusal="has no causal kernel for nested tensors on a CPU")
    )
    return [
        Implementation("SDPA padded", sdpa_padded),
        nested,
        flex,
        Implementation("padded eager", padded_eager, _score_bytes(case, dtype)),
    ]


def _block_mask_bytes(case: BenchCase) -> int:
    blocks = -(-sum(case.lengths) // 128)
    return 24 * blocks**2


def sdpa_padded(inputs: BenchInputs) -> Tensor:
    """`scaled_dot_product_attention` on padded sequences: padding lies behind, where causality hides it."""
    lengths = inputs.plan.offsets.diff()
    longest = int(lengths.max())
    is_token = torch.arange(longest, device=inputs.q.device) < lengths[:, None]
    rows = is_token.flatten().nonzero().flatten()

    def pad(packed: Tensor) -> Tensor:
        padded = packed.new_zeros(lengths.numel() * longest, *packed.shape[1:]).index_copy(0, rows, packed)
        return padded.unflatten(0, (-1, longest)).transpose(1, 2)

    out = F.scaled_dot_product_attention(
        pad(inputs.q),
        pad(inputs.k),
        pad(inputs.v),
        is_causal=True,
        scale=inputs.options["scale"],
        enable_gqa=inputs.q.shape[1] != inputs.k.shape[1],
    )
    return out.transpose(1, 2).flatten(0, 1).index_select(0, rows)


def sdpa_nested(inputs: BenchInputs) -> Tensor:
    """`scaled_dot_product_attention` on jagged nested tensors: the flash kernels for packed sequences."""
    longest = int(inputs.plan.offsets.diff().max())

    def nest(packed: Tensor) -> Tensor:
        nested = torch.nested.nested_tensor_from_jagged(packed, inputs.plan.offsets, max_seqlen=longest)
        return nested.transpose(1, 2)

    q, k, v = nest(inputs.q), nest(inputs.k), nest(inputs.v)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=inputs.options["scale"])
    return out.transpose(1, 2).values()


class FlexAttention:
    """Compiled FlexAttention over all tokens as one sequence; its block mask is made once and not timed."""

    def __init__(self) -> None:
        from torch.nn.attention.flex_attention import flex_attention

        self._attention = torch.compile(flex_attention, dynamic=False)
        self._mask: Any = None
        self._mask_of: BenchInputs | None = None

    def __call__(self, inputs: BenchInputs) -> Tensor:
        if self._mask_of is not inputs:
            self._mask, self._mask_of = self._block_mask(inputs), inputs
        q, k, v = (tensor.transpose(0, 1).unsqueeze(0) for tensor in (inputs.q, inputs.k, inputs.v))
        out = self._attention(
            q, k, v, block_mask=self._mask, scale=inputs.options["scale"], enable_gqa=q.shape[1] != k.shape[1]
        )
        return out.squeeze(0).transpose(0, 1)

    @staticmethod
    def _block_mask(inputs: BenchInputs) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        num_tokens, offsets = inputs.q.shape[0], inputs.plan.offsets
        owner = torch.repeat_interleave(torch.arange(offsets.numel() - 1, device=offsets.device), offsets.diff())

        def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (owner[query] == owner[key]) & (key <= query)

        return create_block_mask(visible, None, None, num_tokens, num_tokens, device=offsets.device, _compile=True)
