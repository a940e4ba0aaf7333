"""What `jagged_attention` is timed on, how many operations that counts, and the usual baseline.

The FLOP convention is that of published tables: forward ``2 * heads * length^2 * dim`` per sequence (the causal
half is already taken off), backward 2.5 times as much. Biases and activations are not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unigrf_kernels.ops.jagged_attention.buckets import time_buckets
from unigrf_kernels.ops.jagged_attention.plan import AttentionPlan, plan_attention

BACKWARD_FACTOR = 2.5


@dataclass(frozen=True)
class BenchCase:
    """One shape of the benchmark.

    Attributes:
        name: name of the shape, matched by `--shapes`.
        lengths: tokens of each sequence.
        num_heads: query heads.
        head_dim: width of a head.
        activation: "silu" or "softmax".
        num_key_heads: key heads, fewer than ``num_heads`` for grouped queries; 0 for as many.
        num_positions: columns of the position bias; 0 for none.
        num_buckets: columns of the time bias; 0 for none.
        sessions: whether times come in sessions as MovieLens' do; else gaps are spread evenly in the logarithm.
    """

    name: str
    lengths: tuple[int, ...] = field(repr=False)
    num_heads: int
    head_dim: int
    activation: str = "silu"
    num_key_heads: int = 0
    num_positions: int = 0
    num_buckets: int = 0
    sessions: bool = True

    @property
    def forward_flops(self) -> int:
        """Floating point operations of forward by the convention above."""
        return 2 * self.num_heads * self.head_dim * sum(length**2 for length in self.lengths)

    @property
    def backward_flops(self) -> int:
        """Floating point operations of backward by the convention above."""
        return int(BACKWARD_FACTOR * self.forward_flops)

    def smallest_bytes(self, dtype: torch.dtype) -> int:
        """Bytes that forward must move: q, k, v and the output, once each."""
        heads = 2 * self.num_heads + 2 * (self.num_key_heads or self.num_heads)
        return sum(self.lengths) * heads * self.head_dim * dtype.itemsize

    def inputs(self, dtype: torch.dtype, device: torch.device | str = "cpu", seed: int = 0) -> BenchInputs:
        """Random operands that require gradients; pairs of tokens share a time, as items and behaviours do."""
        # Drawn where they are used: copies of gigabytes would take longer than the kernels.
        generator = torch.Generator(device).manual_seed(seed)
        num_tokens, key_heads = sum(self.lengths), self.num_key_heads or self.num_heads

        def normal(*shape: int) -> Tensor:
            drawn = torch.randn(shape, generator=generator, device=device)
            return drawn.to(dtype).requires_grad_()

        offsets = torch.tensor((0, *self.lengths), dtype=torch.int64).cumsum(0).to(device)
        times = None
        if self.num_buckets:
            gaps = (session_gaps if self.sessions else spread_gaps)(num_tokens, generator)
            index = torch.cat([torch.arange(length, device=device) for length in self.lengths])
            times = gaps.masked_fill(index % 2 == 1, 0).cumsum(0)
        plan = plan_attention(offsets, query_times=times, key_times=times, max_length=max(self.lengths))
        options: dict[str, Any] = {"activation": self.activation, "scale": self.head_dim**-0.5}
        if self.activation == "silu":
            options["scaling_length"] = float(max(self.lengths))
        if self.num_positions:
            options["position_bias"] = normal(self.num_heads, self.num_positions)
        if self.num_buckets:
            options["time_bias"] = normal(self.num_heads, self.num_buckets)
        q, k, v = (normal(num_tokens, heads, self.head_dim) for heads in (self.num_heads, key_heads, key_heads))
        grad = normal(num_tokens, self.num_heads, self.head_dim).detach()
        return BenchInputs(q, k, v, plan, grad, options)


@dataclass(frozen=True)
class BenchInputs:
    """Operands of a case; ``options`` are further arguments of `jagged_attention`."""

    q: Tensor
    k: Tensor
    v: Tensor
    plan: AttentionPlan
    grad_out: Tensor
    options: dict[str, Any]

    @property
    def leaves(self) -> list[Tensor]:
        """All inputs that get a gradient."""
        return [self.q, self.k, self.v, *(value for value in self.options.values() if isinstance(value, Tensor))]


def session_gaps(count: int, generator: torch.Generator) -> Tensor:
    """``[count]`` int64 seconds between ratings as in MovieLens-1M, on the generator's device.

    Fitted to its 994,169 gaps: 98.2 % lie within a session, lognormal with mean 2.99 and deviation 0.64 of the
    logarithm, the others between sessions with 13.15 and 2.04. Quartiles of the data 13, 19, 29 s, 99th percentile
    5.4 days.
    """
    between = torch.rand(count, generator=generator, device=generator.device) < 0.018
    normal = torch.randn(count, generator=generator, device=generator.device)
    logarithm = torch.where(between, 13.15 + 2.04 * normal, 2.99 + 0.64 * normal)
    return logarithm.exp().clamp(max=1e8).to(torch.int64)


def spread_gaps(count: int, generator: torch.Generator) -> Tensor:
    """``[count]`` int64 seconds, their logarithm spread evenly from 0 to 12."""
    return torch.rand(count, generator=generator, device=generator.device).mul(12).exp().to(torch.int64)


def movielens_lengths(num_sequences: int) -> tuple[int, ...]:
    """Tokens of users like MovieLens-1M's with at most 200 events kept: median 96 events, mean 106.

    Quantiles of a clipped lognormal distribution in a fixed random order, so that every run has the same.
    """
    quantiles = (torch.arange(num_sequences, dtype=torch.float64) + 0.5) / num_sequences
    normal = math.sqrt(2) * torch.erfinv(2 * quantiles - 1)
    events = (math.log(96) + 0.9 * normal).exp().clamp(18, 200).to(torch.int64)
    order = torch.randperm(num_sequences, generator=torch.Generator().manual_seed(0))
    return tuple((2 * events[order]).tolist())


def zipf_lengths(num_sequences: int, longest: int) -> tuple[int, ...]:
    """Long-tailed lengths: the r-th longest of the sequences has ``longest / sqrt(r)`` tokens, at least 16."""
    ranks = torch.arange(1, num_sequences + 1, dtype=torch.float64)
    lengths = (longest / ranks.sqrt()).to(torch.int64).clamp(min=min(16, longest))
    order = torch.randperm(num_sequences, generator=torch.Generator().manual_seed(0))
    return tuple(lengths[order].tolist())


def cpu_cases() -> list[BenchCase]:
    """The shapes that CPU training runs."""
    both: dict[str, Any] = {"num_positions": 402, "num_buckets": 64}
    return [
        BenchCase("ml-1m, 200 events each", (400,) * 128, num_heads=1, head_dim=50, **both),
        BenchCase("ml-1m, its own lengths", movielens_lengths(128), num_heads=1, head_dim=50, **both),
        BenchCase("ml-1m, no biases", movielens_lengths(128), num_heads=1, head_dim=50),
        BenchCase("ml-20m, 4 heads of 64", movielens_lengths(64), num_heads=4, head_dim=64, **both),
        BenchCase(
            "llama, 4 heads of 32 on 2",
            movielens_lengths(128),
            num_heads=4,
            head_dim=32,
            activation="softmax",
            num_key_heads=2,
        ),
    ]


def gpu_cases(*, most_tokens: int = 2**20) -> list[BenchCase]:
    """Heads and lengths of published tables, uniform and long-tailed, in batches of at most ``most_tokens``."""
    cases = []
    for num_heads, head_dim in ((4, 64), (4, 128), (4, 256), (8, 128)):
        for batch in (32, 512):
            for length in (128, 256, 512, 1024, 2048, 4096, 8192):
                for kind, lengths in (("uniform", (length,) * batch), ("zipf", zipf_lengths(batch, length))):
                    if sum(lengths) <= most_tokens:
                        name = f"{num_heads}x{head_dim} T={length} B={batch} {kind}"
                        cases.append(BenchCase(name, lengths, num_heads, head_dim))
    return cases


def padded_eager(inputs: BenchInputs) -> Tensor:
    """The usual baseline: pad, one matrix of all scores, every step a pass over it."""
    plan, options = inputs.plan, inputs.options
    lengths = plan.offsets.diff()
    longest = int(lengths.max())
    index = torch.arange(longest, device=inputs.q.device)
    is_token = index < lengths[:, None]
    groups = inputs.q.shape[1] // inputs.k.shape[1]

    def pad(packed: Tensor) -> Tensor:
        padded = packed.new_zeros(lengths.numel() * longest, *packed.shape[1:])
        padded = padded.index_copy(0, is_token.flatten().nonzero().flatten(), packed)
        return padded.unflatten(0, (-1, longest))

    q, k, v = (pad(tensor).transpose(1, 2) for tensor in (inputs.q, inputs.k, inputs.v))
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = options["scale"] * (q @ k.transpose(2, 3))
    if "position_bias" in options:
        table = options["position_bias"]
        scores = scores + table[:, (index[:, None] - index).clamp(0, table.shape[1] - 1)]
    if "time_bias" in options and plan.query_times is not None and plan.key_times is not None:
        table = options["time_bias"]
        apart = pad(plan.query_times)[:, :, None] - pad(plan.key_times)[:, None, :]
        scores = scores + table[:, time_buckets(apart, table.shape[1])].transpose(0, 1)
    causal = index <= index[:, None]
    if options["activation"] == "silu":
        weights = F.silu(scores) * causal / options["scaling_length"]
    else:
        weights = scores.masked_fill(~causal, -torch.inf).softmax(-1)
    return (weights @ v).transpose(1, 2)[is_token]
