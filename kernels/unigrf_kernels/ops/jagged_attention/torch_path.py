"""The plain PyTorch path: blocks of scores that stay in the cache, with a backward written by hand.

Saved for backward: the inputs, and for softmax the output and the logarithm of each row's sum. Scores are computed
again block by block. Memory beyond inputs and results: two blocks of scores, one group's copy of the inputs, one
padded copy of each result, and the buckets that the plan keeps.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .plan import AttentionPlan
from .torch_activations import Activation, Rows, Silu, Softmax
from .torch_bias import ScoreBias
from .torch_blocks import Block, Group


def blocked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan: AttentionPlan,
    *,
    scale: float,
    scaling_length: float | None,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
) -> Tensor:
    """``[T, H, D]`` in the dtype of ``q``; arguments as in `reference_attention`."""
    settings = _Settings(plan, scale, scaling_length)
    # Asking torch.compiler itself would load Dynamo, which takes longer than torch; if nobody has, nobody traces.
    run = _untraced() if "torch._dynamo" in sys.modules else _run
    return run(q, k, v, position_bias, time_bias, settings)


def _run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    settings: _Settings,
) -> Tensor:
    out: Tensor = _BlockedAttention.apply(q, k, v, position_bias, time_bias, settings)
    return out


_untraced_run: Callable[..., Tensor] | None = None


def _untraced() -> Callable[..., Tensor]:
    """`_run`, kept out of compiled graphs: its schedule is made of numbers that differ in every batch."""
    global _untraced_run
    if _untraced_run is None:
        _untraced_run = torch.compiler.disable(_run)
    return _untraced_run


@dataclass(frozen=True)
class _Settings:
    plan: AttentionPlan
    scale: float
    scaling_length: float | None


class _BlockedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        position_bias: Tensor | None,
        time_bias: Tensor | None,
        settings: _Settings,
    ) -> Tensor:
        out, log_sums = _Forward(q, k, v, position_bias, time_bias, settings).run()
        results = (None, None) if log_sums is None else (out, log_sums)
        ctx.save_for_backward(q, k, v, position_bias, time_bias, *results)
        ctx.settings = settings
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, position_bias, time_bias, out, log_sums = ctx.saved_tensors
        backward = _Backward(q, k, v, position_bias, time_bias, ctx.settings)
        return *backward.run(grad_out, out, log_sums, _NeedsGrad(*ctx.needs_input_grad[:5])), None


class _NeedsGrad(NamedTuple):
    """Which inputs need a gradient."""

    q: bool
    k: bool
    v: bool
    position_bias: bool
    time_bias: bool


class _Pass:
    """What forward and backward have in common."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        position_bias: Tensor | None,
        time_bias: Tensor | None,
        settings: _Settings,
    ) -> None:
        self.q, self.k, self.v = q, k, v
        self.scale = settings.scale
        self.schedule = settings.plan.schedule
        self.phases = range(self.schedule.cells.phases)
        self.num_heads, self.width = q.shape[1:]
        self.heads_per_key_head = q.shape[1] // k.shape[1]
        # Half precision is how operands are stored, not what is computed with: CPUs are slow at it.
        self.dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
        plan = settings.plan
        buckets = None if time_bias is None else plan.block_buckets(time_bias.shape[1])
        self.bias = ScoreBias(plan.schedule, plan.window, position_bias, time_bias, buckets, self.dtype)
        length = settings.scaling_length
        self.activation: Activation = Softmax() if length is None else Silu(length)
        self._memory: dict[str, Tensor] = {}

    def scratch(self, name: str, *shape: int) -> Tensor:
        """Uninitialised memory, the same for each group and block: new pages cost a tenth of the whole time."""
        size = math.prod(shape)
        memory = self._memory.get(name)
        if memory is None or memory.numel() < size:
            memory = self._memory[name] = torch.empty(size, dtype=self.dtype, device=self.q.device)
        return memory[:size].view(shape)

    def load_queries(self, name: str, packed: Tensor, head: int, group: Group) -> Tensor:
        """``[slots, width]`` of a group."""
        return group.queries.load(packed[:, head], self.scratch(name, len(group.queries), packed.shape[2]))

    def load_keys(self, name: str, packed: Tensor, head: int, group: Group) -> Tensor:
        """``[slots, width]`` of a group, for a query head."""
        key_head = head // self.heads_per_key_head
        return group.keys.load(packed[:, key_head], self.scratch(name, len(group.keys), packed.shape[2]))

    def scores(self, head: int, group: Group, block: Block, q: Tensor, k: Tensor) -> Tensor:
        """``[F, N, F, R, C]`` scores of a block with biases and masks."""
        scores = self.scratch("scores", *block.shape)
        has_terms = self.bias.write_terms(scores, head, group, block)
        queries = block.queries(q)
        for phase, products in enumerate(_matrices(scores)):
            keys = block.keys(k, phase).transpose(1, 2)
            if has_terms:
                products.baddbmm_(queries, keys)
            else:
                torch.bmm(queries, keys, out=products)
        self.bias.mask(scores, head, block)
        return scores

    def apply(self, weights: Tensor, block: Block, keys: Tensor, out: Tensor) -> Tensor:
        """Write ``weights @ keys``, summed over the phases, to the block's part of ``out``, and return that."""
        block_out = block.queries(out)
        for phase, matrix in enumerate(_matrices(weights)):
            if phase == 0:
                torch.bmm(matrix, block.keys(keys, phase), out=block_out)
            else:
                block_out.baddbmm_(matrix, block.keys(keys, phase))
        return block_out

    def add_transposed(self, weights: Tensor, block: Block, queries: Tensor, out: Tensor) -> None:
        """Add ``weights^T @ queries`` to the block's part of ``out``."""
        block_queries = block.queries(queries)
        product = self.scratch("product", block.shape[1], block.shape[4], self.width)
        for phase, matrix in enumerate(_matrices(weights)):
            torch.bmm(matrix.transpose(1, 2), block_queries, out=product)
            block.keys(out, phase).add_(product)


class _Forward(_Pass):
    def run(self) -> tuple[Tensor, Tensor | None]:
        """Output, and log sums ``[T, H, 1]`` where backward needs them."""
        layout = self.schedule.forward
        slots = self.scratch("all_out", self.num_heads, layout.num_query_slots, self.width)
        log_sums = self.scratch("all_log_sums", self.num_heads, layout.num_query_slots, 1)
        for group in layout.groups:
            for head in range(self.num_heads):
                self.attend(head, group, slots[head], log_sums[head])
        out = _to_tokens(slots, layout.query_slot, self.q.dtype)
        if not self.activation.keeps_rows:
            return out, None
        return out, _to_tokens(log_sums, layout.query_slot, self.dtype)

    def attend(self, head: int, group: Group, out: Tensor, log_sums: Tensor) -> None:
        """One head of one group, to its part of all slots."""
        q = self.load_queries("q", self.q, head, group).mul_(self.scale)
        k = self.load_keys("k", self.k, head, group)
        v = self.load_keys("v", self.v, head, group).mul_(self.activation.value_factor)
        out, log_sums = group.queries.part_of(out), group.queries.part_of(log_sums)
        for block in group.blocks:
            scores = self.scores(head, group, block, q, k)
            sums = self.activation.weigh_(scores)
            block_out = self.apply(scores, block, v, out)
            if sums is not None:
                block_out.div_(sums.divisors)
                block.queries(log_sums).copy_(sums.log_sums)


class _Backward(_Pass):
    def run(
        self, grad_out: Tensor, out: Tensor | None, log_sums: Tensor | None, needs_grad: _NeedsGrad
    ) -> tuple[Tensor | None, ...]:
        """Gradients of q, k, v and both tables."""
        schedule, layout, num_key_heads = self.schedule, self.schedule.backward, self.k.shape[1]
        self.needs_grad = needs_grad
        self.dq = self.scratch("dq", self.num_heads, layout.num_query_slots, self.width)
        self.dk = self.scratch("dk", num_key_heads, schedule.num_key_slots, self.width).zero_()
        self.dv = self.scratch("dv", num_key_heads, schedule.num_key_slots, self.width).zero_()
        for group in layout.groups:
            for head in range(self.num_heads):
                self.differentiate(head, group, grad_out, self.rows(head, group, grad_out, out, log_sums))
        return (
            _to_tokens(self.dq.mul_(self.scale), layout.query_slot, self.q.dtype) if needs_grad.q else None,
            _to_tokens(self.dk, schedule.key_slot, self.k.dtype) if needs_grad.k else None,
            _to_tokens(self.dv, schedule.key_slot, self.v.dtype) if needs_grad.v else None,
            self.bias.position_gradient() if needs_grad.position_bias else None,
            self.bias.time_gradient() if needs_grad.time_bias else None,
        )

    def differentiate(self, head: int, group: Group, grad_out: Tensor, rows: Rows | None) -> None:
        """Add what one head of one group contributes to all gradients."""
        q = self.load_queries("q", self.q, head, group).mul_(self.scale)
        k = self.load_keys("k", self.k, head, group)
        v = self.load_keys("v", self.v, head, group)
        do = self.load_queries("do", grad_out, head, group).mul_(self.activation.value_factor)
        dq = group.queries.part_of(self.dq[head])
        dk = group.keys.part_of(self.dk[head // self.heads_per_key_head])
        dv = group.keys.part_of(self.dv[head // self.heads_per_key_head])
        for block in group.blocks:
            # Candidates that are scored but not in the loss have no gradient, so they contribute to no other one.
            if not block.rows and not block.queries(do).any():
                block.queries(dq).zero_()
                continue
            block_rows = None if rows is None else Rows(*map(block.queries, rows))
            scores = self.scores(head, group, block, q, k)
            gradient = self.scratch("gradient", *block.shape)
            weights = self.activation.recompute_weights(scores, gradient, block_rows)
            if self.needs_grad.v:
                self.add_transposed(weights, block, do, dv)
            if not (
                self.needs_grad.q
                or self.needs_grad.k
                or self.needs_grad.position_bias
                or self.needs_grad.time_bias
            ):
                continue
            block_do = block.queries(do)
            for phase, products in enumerate(_matrices(gradient)):
                torch.bmm(block_do, block.keys(v, phase).transpose(1, 2), out=products)
            self.activation.differentiate_(gradient, scores, block_rows)
            if self.needs_grad.position_bias:
                self.bias.collect_position(gradient, head, group, block)
            if self.needs_grad.time_bias:
                self.bias.collect_time(gradient, head, group, block)
            if self.needs_grad.k:
                self.add_transposed(gradient, block, q, dk)
            if self.needs_grad.q:
                self.apply(gradient, block, k, dq)

    def rows(
        self, head: int, group: Group, grad_out: Tensor, out: Tensor | None, log_sums: Tensor | None
    ) -> Rows | None:
        """What softmax kept of a group's queries, ``[slots, 1]`` each; None for silu."""
        if out is None or log_sums is None:
            return None
        do = self.load_queries("do", grad_out, head, group)
        products = self.load_queries("out", out, head, group).mul_(do)
        return Rows(self.load_queries("log_sums", log_sums, head, group), products.sum(1, keepdim=True))


def _matrices(scores: Tensor) -> tuple[Tensor, ...]:
    """``[N, F R, C]`` for each phase of the keys."""
    return scores.flatten(2, 3).unbind(0)


def _to_tokens(slots: Tensor, slot_of_token: Tensor, dtype: torch.dtype) -> Tensor:
    """``[heads, slots, D]`` to ``[T, heads, D]``."""
    heads, _, width = slots.shape
    tokens = torch.empty(slot_of_token.numel(), heads, width, dtype=dtype, device=slots.device)
    for head in range(heads):
        if dtype == slots.dtype:
            torch.index_select(slots[head], 0, slot_of_token, out=tokens[:, head])
        else:
            tokens[:, head] = slots[head].index_select(0, slot_of_token)
    return tokens
