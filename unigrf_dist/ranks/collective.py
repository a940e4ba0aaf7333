"""Collectives of an evaluation: sums, maxima and gathers over ranks, or over this process alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Collective:
    """The ranks of ``group``, or all ranks; this process alone where no process group was started.

    Tensors may lie on the CPU or on this rank's device, whatever the backend.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        alone = not dist.is_initialized()
        self.rank = 0 if alone else dist.get_rank(group)
        self.world_size = 1 if alone else dist.get_world_size(group)
        # NCCL moves nothing that lies on the CPU.
        self._only_cuda = not alone and dist.get_backend(group) == "nccl"

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks, in place."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def maximum(self, values: Tensor) -> Tensor:
        """Largest over ranks, in place."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def gather_rows(self, rows: Tensor) -> list[Tensor]:
        """Each rank's ``[n_r, ...]`` by rank; ``n_r`` may differ and be zero, the rest of the shape may not."""
        if self.world_size == 1:
            return [rows]
        lengths = torch.zeros(self.world_size, dtype=torch.int64, device=rows.device)
        lengths[self.rank] = rows.shape[0]
        counts = self.sum(lengths).tolist()
        # The collective wants equal shapes; what is padded here is cut off again below.
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: rows.shape[0]] = rows
        sent = self._sendable(padded)
        parts = [torch.empty_like(sent) for _ in counts]
        dist.all_gather(parts, sent, group=self._group)
        return [part[:count].to(rows.device) for part, count in zip(parts, counts, strict=True)]

    def exchange_rows(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """What each rank has for this one, by rank.

        Args:
            rows: what this rank has for each, ``[n_r, ...]`` by rank; ``n_r`` may differ and be zero, the rest of
                the shape and the type may not.
        """
        if self.world_size == 1:
            return list(rows)
        outgoing = [len(part) for part in rows]
        counts = torch.cat(self.gather_rows(torch.tensor([outgoing], device=rows[0].device)))
        incoming = counts[:, self.rank].tolist()
        sent = self._sendable(torch.cat(list(rows)))
        received = sent.new_empty(sum(incoming), *sent.shape[1:])
        dist.all_to_all_single(received, sent, incoming, outgoing, group=self._group)
        return list(received.to(rows[0].device).split(incoming))

    def gather_objects(self, value: Any) -> list[Any]:
        """Each rank's small picklable ``value`` by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def _reduce(self, values: Tensor, operation: Any) -> Tensor:
        if self.world_size > 1:
            sent = self._sendable(values)
            dist.all_reduce(sent, operation, group=self._group)
            if sent is not values:
                values.copy_(sent)
        return values

    def _sendable(self, values: Tensor) -> Tensor:
        return values.cuda() if self._only_cuda else values
