"""Difficult inputs, the float64 oracle, and the error that an implementation may make.

Every implementation of ``jagged_attention`` is tested on the cases of this file and on no others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unigrf_kernels.ops.jagged_attention import jagged_attention
from unigrf_kernels.ops.jagged_attention.buckets import time_buckets
from unigrf_kernels.ops.jagged_attention.reference import structure

FORWARD_FACTOR = 2
BACKWARD_FACTOR = 5


@dataclass(frozen=True)
class Case:
    """Shapes and options of one call."""

    name: str
    lengths: tuple[int, ...]
    num_heads: int = 1
    num_key_heads: int = 1
    head_dim: int = 16
    activation: str = "silu"
    candidates: tuple[int, ...] | None = None
    window: int | None = None
    num_positions: int = 0
    """Columns of the position bias; 0: no position bias."""
    num_buckets: int = 0
    """Columns of the time bias; 0: no time bias."""
    times: str = "distinct"
    """``distinct``, ``pairs`` or ``shifted``: see `make_times`."""

    def __str__(self) -> str:
        return self.name

    @property
    def num_tokens(self) -> int:
        return sum(self.lengths)


LENGTHS = (0, 37, 1, 0, 70, 2, 33, 0)

CASES = [
    Case("plain", LENGTHS),
    Case("no-sequences", ()),
    Case("only-empty", (0, 0)),
    Case("one-token", (1,)),
    Case("both-biases", LENGTHS, num_positions=200, num_buckets=40),
    Case("both-biases-two-heads", LENGTHS, num_heads=2, num_key_heads=2, num_positions=11, num_buckets=5),
    Case("position-only", LENGTHS, num_positions=33),
    Case("time-only", LENGTHS, num_buckets=12),
    Case("one-row-tables", LENGTHS, num_positions=1, num_buckets=1),
    Case("pairs", (0, 38, 2, 70, 33), num_positions=50, num_buckets=40, times="pairs"),
    Case("shifted", (0, 38, 2, 70, 33, 1), num_positions=50, num_buckets=40, times="shifted"),
    Case("candidates", LENGTHS, candidates=(0, 5, 1, 0, 9, 0, 33, 0)),
    Case(
        "candidates-biases",
        LENGTHS,
        num_heads=2,
        num_key_heads=2,
        candidates=(0, 5, 1, 0, 9, 2, 33, 0),
        num_positions=30,
        num_buckets=40,
    ),
    Case("candidates-pairs", (38, 20, 7), candidates=(4, 3, 7), num_positions=64, num_buckets=40, times="pairs"),
    Case("window", LENGTHS, window=9, num_positions=30, num_buckets=20),
    Case("window-one", LENGTHS, window=1, num_positions=30),
    Case("window-candidates", LENGTHS, window=6, candidates=(0, 9, 0, 0, 3, 2, 1, 0), num_positions=4),
    Case("window-pairs", (38, 71), window=7, num_positions=9, num_buckets=30, times="shifted"),
    Case("softmax", LENGTHS, activation="softmax"),
    Case("softmax-grouped", LENGTHS, activation="softmax", num_heads=6, num_key_heads=2, head_dim=32),
    Case("silu-grouped", LENGTHS, num_heads=4, num_key_heads=1, num_positions=8, num_buckets=8),
    Case(
        "softmax-biases",
        LENGTHS,
        activation="softmax",
        num_heads=2,
        num_key_heads=2,
        num_positions=20,
        num_buckets=20,
    ),
    Case("softmax-pairs", (38, 70), activation="softmax", num_positions=99, num_buckets=20, times="pairs"),
    Case("softmax-candidates", LENGTHS, activation="softmax", candidates=(0, 5, 1, 0, 9, 2, 33, 0)),
    Case("softmax-window", LENGTHS, activation="softmax", window=5, num_positions=3),
    Case("odd-head-dim", (40, 3), head_dim=25, num_positions=64, num_buckets=16),
    Case("wide-head", (33, 17), head_dim=128),
    Case("tile-edges", (64, 128, 127, 129, 65, 63), num_positions=300, num_buckets=40, times="pairs"),
    Case("long", (300, 257), num_positions=512, num_buckets=64, times="pairs"),
]


@dataclass(frozen=True)
class Inputs:
    """Arguments of one call, in one dtype."""

    q: Tensor
    k: Tensor
    v: Tensor
    offsets: Tensor
    grad_output: Tensor
    options: dict[str, Any]

    @property
    def differentiable(self) -> dict[str, Tensor]:
        """The inputs that may ask for a gradient, by name."""
        tables = {name: self.options[name] for name in ("position_bias", "time_bias") if name in self.options}
        return {"q": self.q, "k": self.k, "v": self.v, **tables}

    def with_tensors(self, tensors: dict[str, Tensor]) -> Inputs:
        """The same call with some of `differentiable` replaced."""
        operands = {name: tensors[name] for name in ("q", "k", "v") if name in tensors}
        tables = {name: tensor for name, tensor in tensors.items() if name not in operands}
        return replace(self, **operands, options={**self.options, **tables})

    def to(self, target: torch.dtype | torch.device | str) -> Inputs:
        """Values in another dtype, or everything on another device."""

        def move(tensor: Tensor) -> Tensor:
            keep = isinstance(target, torch.dtype) and not tensor.is_floating_point()
            return tensor if keep else tensor.to(target)

        options = {key: move(value) if isinstance(value, Tensor) else value for key, value in self.options.items()}
        return Inputs(*map(move, (self.q, self.k, self.v, self.offsets, self.grad_output)), options)


def make_inputs(case: Case, dtype: torch.dtype = torch.float32, seed: int = 0) -> Inputs:
    """Inputs of ``case``. They are exact in ``dtype``: converted to float64, the task stays the same."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * std).to(dtype)

    options: dict[str, Any] = {"activation": case.activation, "scale": case.head_dim**-0.5}
    if case.activation == "silu":
        options["scaling_length"] = 48.0
    if case.candidates is not None:
        options["num_candidates"] = torch.tensor(case.candidates, dtype=torch.int64)
    if case.window is not None:
        options["window"] = case.window
    if case.num_positions:
        options["position_bias"] = normal(case.num_heads, case.num_positions, std=0.5)
    if case.num_buckets:
        options["time_bias"] = normal(case.num_heads, case.num_buckets, std=0.5)
        options["query_times"], options["key_times"] = make_times(case, generator)
    return Inputs(
        q=normal(case.num_tokens, case.num_heads, case.head_dim),
        k=normal(case.num_tokens, case.num_key_heads, case.head_dim),
        v=normal(case.num_tokens, case.num_key_heads, case.head_dim),
        offsets=torch.tensor((0, *case.lengths), dtype=torch.int64).cumsum(0),
        grad_output=normal(case.num_tokens, case.num_heads, case.head_dim),
        options=options,
    )


def make_times(case: Case, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Query and key times of all tokens: near and far moments, ties, and some that go backwards.

    "pairs": tokens 2m and 2m + 1 of a sequence share their time, as an item and its behaviour do. "shifted":
    keys likewise, but query 2m + 1 asks at the moment of the next pair, as a model does that knows when it is
    asked.
    """
    sequences = []
    for length in case.lengths:
        gaps = torch.rand(length, generator=generator, dtype=torch.float64) * 16 - 1
        moments = 978_300_760 + (gaps.exp() * (gaps > 0)).to(torch.int64).cumsum(0)
        if length > 4:
            moments[length // 2] = moments[0] - 5
        if case.times == "distinct":
            delay = torch.randint(0, 50, (length,), generator=generator)
            sequences.append((moments + delay, moments))
            continue
        pair = torch.arange(length) // 2
        asked = (torch.arange(length) + 1) // 2 if case.times == "shifted" else pair
        sequences.append((moments[asked], moments[pair]))
    if not sequences:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    return torch.cat([query for query, _ in sequences]), torch.cat([key for _, key in sequences])


def run(inputs: Inputs, implementation: str, **options: Any) -> dict[str, Tensor]:
    """Output and the gradients of all differentiable inputs, by name."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.differentiable.items()}
    call = inputs.with_tensors(leaves)
    out = jagged_attention(
        call.q, call.k, call.v, call.offsets, **call.options, **options, implementation=implementation
    )
    gradients = torch.autograd.grad(out, list(leaves.values()), inputs.grad_output)
    return {"out": out.detach(), **dict(zip(leaves, gradients, strict=True))}


def oracle(inputs: Inputs) -> dict[str, Tensor]:
    """The truth: the reference in float64."""
    return run(inputs.to(torch.float64), "reference")


def assert_as_exact_as_eager(inputs: Inputs, actual: dict[str, Tensor]) -> None:
    """Error against float64: at most 2x (output), 5x (gradients) that of plain PyTorch, plus a rounding band.

    The band is one unit in the last place of the largest exact value, or of the largest number that `largest_sums`
    or `cancelled_terms` knows of: below that, a comparison with eager's own error is a matter of luck. Eager is
    run on several orders of the head's dimensions, which are all the same problem: on one alone it may be exact by
    luck.
    """
    exact = oracle(inputs)
    eager = [_run_with_dimensions_permuted(inputs, seed) for seed in range(4)]
    sums, cancelled = largest_sums(inputs), cancelled_terms(inputs)
    assert actual.keys() == exact.keys()
    for name, truth in exact.items():
        assert actual[name].dtype == eager[0][name].dtype, name
        assert actual[name].shape == truth.shape, name
        if truth.numel() == 0:
            continue
        factor = FORWARD_FACTOR if name == "out" else BACKWARD_FACTOR
        largest = max(truth.abs().max().item(), sums.get(name, 0.0), cancelled.get(name, 0.0))
        band = torch.finfo(actual[name].dtype).eps * largest
        allowed = factor * max((plain[name].double() - truth).abs().max().item() for plain in eager) + band
        error = (actual[name].double() - truth).abs().max().item()
        assert error <= allowed, f"{name}: error {error:.3e}, allowed {allowed:.3e}"


def _run_with_dimensions_permuted(inputs: Inputs, seed: int) -> dict[str, Tensor]:
    order = torch.randperm(inputs.q.shape[2], generator=torch.Generator().manual_seed(seed))
    permuted = {name: inputs.differentiable[name][..., order] for name in ("q", "k", "v")}
    call = replace(inputs.with_tensors(permuted), grad_output=inputs.grad_output[..., order])
    results = run(call, "reference")
    return {
        name: result[..., order.argsort()] if name in ("out", "q", "k", "v") else result
        for name, result in results.items()
    }


def largest_sums(inputs: Inputs) -> dict[str, float]:
    """For each bias table, what its largest gradient entry would be if its terms did not cancel.

    An entry adds up the gradients of hundreds of scores, and softmax's add up to zero in every row. So entries are
    small beside their terms, and their error is a rounding error of the terms: it depends on the order of the
    sum and says nothing about the kernel. A pair lost or counted twice errs by a whole term.
    """
    tables = {name: inputs.options[name] for name in ("position_bias", "time_bias") if name in inputs.options}
    if not tables or inputs.q.shape[0] == 0:
        return {}
    gradients = score_gradients(inputs).abs()
    bounds = inputs.offsets.tolist()
    candidates = inputs.options.get("num_candidates", torch.zeros(len(bounds) - 1, dtype=torch.int64)).tolist()
    sums = {name: torch.zeros(table.shape, dtype=torch.float64) for name, table in tables.items()}
    for start, stop, count in zip(bounds[:-1], bounds[1:], candidates, strict=True):
        tokens = slice(start, stop)
        terms = gradients[:, tokens, : stop - start].flatten(1)
        for name, table in tables.items():
            if name == "position_bias":
                position, _ = structure(stop - start, count, None, inputs.offsets.device)
                entry = (position[None, :] - position[:, None]).clamp(0, table.shape[1] - 1)
            else:
                asked, happened = inputs.options["query_times"][tokens], inputs.options["key_times"][tokens]
                entry = time_buckets(asked[None, :] - happened[:, None], table.shape[1]).long()
            sums[name].index_add_(1, entry.flatten(), terms)
    return {name: total.max().item() for name, total in sums.items()}


def cancelled_terms(inputs: Inputs) -> dict[str, float]:
    """For softmax, a bound of the two terms whose difference is the gradient of a score, by what they flow into.

    They are equal where a query sees one key: the gradient then is zero, and its error a rounding error of either.
    """
    if inputs.options["activation"] != "softmax" or inputs.q.shape[0] == 0:
        return {}
    q, k, v, grad = (tensor.double() for tensor in (inputs.q, inputs.k, inputs.v, inputs.grad_output))
    term = (v.norm(dim=2).max() * grad.norm(dim=2).max()).item()
    scaled = term * inputs.options["scale"]
    return {
        "q": scaled * k.abs().max().item(),
        "k": scaled * q.abs().max().item(),
        "position_bias": term,
        "time_bias": term,
    }


def score_gradients(inputs: Inputs) -> Tensor:
    """Gradient of every score in float64, `[heads, keys, queries of the key's sequence]`, from the reference.

    Each query gets a dimension of its own behind the head's, in which it is one and all keys are zero: then the
    gradient of a key in that dimension is the gradient of their score.
    """
    exact = inputs.to(torch.float64)
    num_tokens, num_heads, head_dim = exact.q.shape
    lengths = exact.offsets.diff()
    index = torch.arange(num_tokens) - exact.offsets[:-1].repeat_interleave(lengths)
    one_hot = F.one_hot(index).double()[:, None, :].expand(-1, num_heads, -1)
    nothing = torch.zeros_like(one_hot)

    def widen(tensor: Tensor, extra: Tensor) -> Tensor:
        return torch.cat([tensor.repeat_interleave(num_heads // tensor.shape[1], dim=1), extra], dim=2)

    key = widen(exact.k, nothing).requires_grad_()
    wide = exact.with_tensors(
        {"q": widen(exact.q, one_hot / exact.options["scale"]), "v": widen(exact.v, nothing)}
    )
    out = jagged_attention(wide.q, key, wide.v, wide.offsets, **wide.options, implementation="reference")
    (gradient,) = torch.autograd.grad(out, key, widen(exact.grad_output, nothing))
    return gradient[:, :, head_dim:].transpose(0, 1)
