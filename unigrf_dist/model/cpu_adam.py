"""Adam fused into the backward of FBGEMM's CPU tables.

FBGEMM fuses Adam on CUDA only; its CPU tables refuse it. This subclass adds it on FBGEMM's own hook points
and under the state names of the CUDA build, so that plans, checkpoints and resharding do not notice.

The update is lazy: only rows that occur in a step move, with the bias correction of the global step
(Kingma & Ba, arXiv 1412.6980, algorithm 1), as the CUDA kernel does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torchrec.distributed.batched_embedding_kernel as torchrec_kernels
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen
from torch import Tensor


class _LookupWithUpdate(torch.autograd.Function):
    """Gather rows; in backward hand the rows' gradients to the table instead of a dense gradient."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, rows: Tensor, table: CpuAdamTable) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.table = table
        return weights.detach().view(-1, table.width).index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, None, None]:
        (rows,) = ctx.saved_tensors
        ctx.table.update(rows, grad_outputs[0].float())
        return None, None, None


class CpuAdamTable(SplitTableBatchedEmbeddingBagsCodegen):
    """A group of FBGEMM CPU tables of one width whose fused optimizer is Adam."""

    def __init__(self, *args: Any, optimizer: EmbOptimType, **kwargs: Any) -> None:
        if optimizer != EmbOptimType.ADAM:
            raise ValueError(f"CpuAdamTable is for Adam, got {optimizer}")
        # Element-wise Adagrad allocates what the first moment needs: one value per weight.
        super().__init__(*args, optimizer=EmbOptimType.EXACT_ADAGRAD, **kwargs)
        widths = {spec[1] for spec in self.embedding_specs}
        if len(widths) != 1:
            raise ValueError(f"tables updated together must have one width, got {sorted(widths)}")
        self.width: int = widths.pop()
        self._betas = (kwargs.get("beta1", 0.9), kwargs.get("beta2", 0.999))
        self._eps = kwargs.get("eps", 1e-8)
        self._second_moment = torch.zeros_like(self.momentum1_host)
        self._num_updates = 0

    @torch.no_grad()
    def update(self, rows: Tensor, gradients: Tensor) -> None:
        """One Adam step on the distinct ``rows``; gradients of repeated rows are summed."""
        self._num_updates += 1
        touched, position = rows.unique(return_inverse=True)
        gradient = torch.zeros(touched.numel(), self.width).index_add_(0, position, gradients)
        weights, first, second = (
            t.data.view(-1, self.width) for t in (self.weights_host, self.momentum1_host, self._second_moment)
        )
        beta1, beta2 = self._betas
        mean = first[touched].lerp_(gradient, 1 - beta1)
        square = second[touched].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        first[touched], second[touched] = mean, square
        step_size = self.learning_rate_tensor.item() / (1 - beta1**self._num_updates)
        denominator = square.div(1 - beta2**self._num_updates).sqrt_().add_(self._eps)
        weights.index_add_(0, touched, mean.div_(denominator), alpha=-step_size)

    def forward(self, indices: Tensor, offsets: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        """``[N, width]`` rows of ``indices``, which hold the features one after another."""
        num_tables = len(self.embedding_specs)
        samples = (offsets.numel() - 1) // num_tables  # of each table; never 0: see _NUM_SAMPLES in tables.py
        per_table = offsets[::samples].diff()
        first_rows = torch.tensor([int(o) // self.width for o in self.weights_physical_offsets[:num_tables]])
        rows = indices + torch.repeat_interleave(first_rows, per_table)
        return _LookupWithUpdate.apply(self.weights_host, rows, self)

    def get_optimizer_state(self) -> list[dict[str, Tensor]]:
        states = []
        for table, ((rows, width, *_), moments) in enumerate(
            zip(self.embedding_specs, self.split_optimizer_states(), strict=True)
        ):
            start = int(self.weights_physical_offsets[table])
            second = self._second_moment[start : start + rows * width].view(rows, width)
            states.append({"exp_avg": moments[0], "exp_avg_sq": second})
        return states

    def set_optimizer_step(self, step: int) -> None:
        self._num_updates = step


def _table_for(*args: Any, **kwargs: Any) -> SplitTableBatchedEmbeddingBagsCodegen:
    on_cpu = getattr(kwargs.get("device"), "type", "cpu") == "cpu"
    if on_cpu and kwargs.get("optimizer") == EmbOptimType.ADAM:
        return CpuAdamTable(*args, **kwargs)
    return SplitTableBatchedEmbeddingBagsCodegen(*args, **kwargs)


@contextmanager
def cpu_adam_tables() -> Iterator[None]:
    """While open, TorchRec builds its CPU tables with Adam where Adam is asked for."""
    original = torchrec_kernels.SplitTableBatchedEmbeddingBagsCodegen
    torchrec_kernels.SplitTableBatchedEmbeddingBagsCodegen = _table_for
    try:
        yield
    finally:
        torchrec_kernels.SplitTableBatchedEmbeddingBagsCodegen = original
