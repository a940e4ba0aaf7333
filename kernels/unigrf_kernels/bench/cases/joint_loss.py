"""Tasks of `joint_loss`: rows by negatives, and the usual baselines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unigrf_kernels.bench.implementations import compiled, of_this_package
from unigrf_kernels.bench.task import Implementation, Operands, Task, Work
from unigrf_kernels.ops.joint_loss import joint_loss

TEMPERATURE = 0.05
NUM_ITEMS = 1_000_000
_CHUNK_ROWS = 2048


@dataclass(frozen=True)
class LossInputs:
    """Even rows of ``hidden`` predict the behaviour, odd ones the next item."""

    hidden: Tensor
    positives: Tensor
    negatives: Tensor
    head_weight: Tensor
    head_bias: Tensor
    positive_ids: Tensor
    negative_ids: Tensor
    labels: Tensor


def make_tasks(device: torch.device, dtype: torch.dtype, want_compiled: bool) -> list[Task]:
    """Retrieval rows by shared negatives by width; as many ranking rows, with two tasks."""
    if device.type == "cpu":
        shapes = [(4096, 128, 64), (4096, 3706, 50)]
    else:
        shapes = [
            (rows, negatives, width)
            for width in (64, 256)
            for rows in (32_768, 131_072)
            for negatives in (128, 1024, 8192, 65_536)
        ]
    return [_task(*shape, device, dtype, want_compiled) for shape in shapes]


def _task(
    rows: int, negatives: int, width: int, device: torch.device, dtype: torch.dtype, want_compiled: bool
) -> Task:
    def make() -> Operands:
        inputs = make_inputs(rows, negatives, width, device, dtype)
        leaves = [inputs.hidden, inputs.positives, inputs.negatives, inputs.head_weight, inputs.head_bias]
        return Operands(inputs, leaves, [torch.ones((), device=device)] * 2)

    # Logits forward; gradients of rows and of negatives backward. What is computed twice is not counted twice.
    flops = 3 * 2 * rows * negatives * width
    num_bytes = 2 * (3 * rows + negatives) * width * dtype.itemsize
    needed = 5 * rows * negatives * 4
    implementations = [
        *of_this_package(_this_package, device),
        Implementation("eager", eager, needed),
        Implementation("eager in chunks", chunked_eager, 5 * _CHUNK_ROWS * negatives * 4),
        compiled("eager, compiled", eager, want_compiled, needed),
    ]
    shape = f"{rows} rows x {negatives} negatives x {width}"
    return Task("joint_loss", shape, make, implementations, {"step": Work(flops, num_bytes)}, "gemm")


def make_inputs(
    rows: int, negatives: int, width: int, device: torch.device | str, dtype: torch.dtype
) -> LossInputs:
    """Random operands that require gradients."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype).requires_grad_()

    def ids(count: int) -> Tensor:
        return torch.randint(NUM_ITEMS, (count,), generator=generator).to(device)

    labels = torch.randint(2, (rows, 2), generator=generator).float().to(device)
    return LossInputs(
        normal(2 * rows, width), normal(rows, width), normal(negatives, width), normal(2, width), normal(2),
        ids(rows), ids(negatives), labels,
    )  # fmt: skip


def _this_package(inputs: LossInputs, implementation: str) -> tuple[Tensor, Tensor]:
    even = torch.arange(0, inputs.hidden.shape[0], 2, device=inputs.hidden.device)
    loss = joint_loss(
        inputs.hidden,
        retrieval_rows=even + 1,
        positives=inputs.positives,
        positive_ids=inputs.positive_ids,
        negatives=inputs.negatives,
        negative_ids=inputs.negative_ids,
        ranking_rows=even,
        head_weight=inputs.head_weight,
        head_bias=inputs.head_bias,
        labels=inputs.labels,
        temperature=TEMPERATURE,
        implementation=implementation,
    )
    return loss.retrieval_sum, loss.ranking_sum


def eager(inputs: LossInputs) -> tuple[Tensor, Tensor]:
    """All logits at once."""
    hidden, positives, negatives = (
        F.normalize(tensor.float(), dim=1) for tensor in (inputs.hidden[1::2], inputs.positives, inputs.negatives)
    )
    dtype = inputs.hidden.dtype
    retrieval = _retrieval(
        hidden.to(dtype), positives.to(dtype), negatives.to(dtype), inputs.positive_ids, inputs.negative_ids
    )
    return retrieval, _ranking(inputs)


def chunked_eager(inputs: LossInputs) -> tuple[Tensor, Tensor]:
    """Rows in chunks whose logits are computed again for their gradients."""
    dtype = inputs.hidden.dtype
    hidden, positives, negatives = (
        F.normalize(tensor.float(), dim=1).to(dtype)
        for tensor in (inputs.hidden[1::2], inputs.positives, inputs.negatives)
    )
    total = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, hidden.shape[0], _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        total = total + checkpoint(
            _retrieval,
            hidden[rows],
            positives[rows],
            negatives,
            inputs.positive_ids[rows],
            inputs.negative_ids,
            use_reentrant=False,
        )
    return total, _ranking(inputs)


def _retrieval(
    hidden: Tensor, positives: Tensor, negatives: Tensor, positive_ids: Tensor, negative_ids: Tensor
) -> Tensor:
    positive = (hidden.float() * positives.float()).sum(1) / TEMPERATURE
    logits = (hidden @ negatives.t()).float() / TEMPERATURE
    logits = logits.masked_fill(positive_ids[:, None] == negative_ids, -torch.inf)
    return (torch.cat([positive[:, None], logits], 1).logsumexp(1) - positive).sum()


def _ranking(inputs: LossInputs) -> Tensor:
    logits = torch.addmm(inputs.head_bias, inputs.hidden[::2], inputs.head_weight.t())
    return F.binary_cross_entropy_with_logits(logits.float(), inputs.labels, reduction="sum")
