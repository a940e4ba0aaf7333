"""The operator as PyTorch sees it: one custom op per implementation, a shape function, and a backward that scales.

The forward op returns the unscaled gradients beside the losses, so backward needs neither the inputs nor the
kernels: a parameter that ZeRO-3 has given back in the meantime is not missed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..implementation import Implementation
from .problem import Computed, JointLoss, NeedsGrad, Problem, empty_result

_SCHEMA = (
    "(Tensor hidden, Tensor positives, Tensor negatives, Tensor? user_negatives, Tensor head_weight,"
    " Tensor head_bias, Tensor retrieval_rows, Tensor positive_ids, Tensor negative_ids,"
    " Tensor? retrieval_weights, Tensor? positive_log_q, Tensor? negative_log_q, Tensor? retrieval_users,"
    " Tensor? user_negative_ids, Tensor? negative_mask, Tensor? negative_mask_rows, Tensor ranking_rows,"
    " Tensor labels, Tensor? task_weights, float temperature, bool normalize, bool[] needs_grad) -> ("
    + ", ".join(["Tensor"] * len(Computed._fields))
    + ")"
)
_NUM_INPUTS = len(Problem._fields) + 1
_NUM_DIFFERENTIABLE = len(NeedsGrad._fields)


def differentiable_joint_loss(problem: Problem, implementation: Implementation) -> JointLoss:
    """Run ``implementation`` on ``problem``; the two sums are differentiable."""
    computed = Computed(*_OPERATORS[implementation](*problem, list(needed_gradients(problem))))
    sums = computed[:2]
    return JointLoss(*sums, *(value.detach() for value in computed[2 : len(JointLoss._fields)]))


def needed_gradients(problem: Problem) -> NeedsGrad:
    """Which inputs autograd will ask a gradient of."""
    inputs = problem[:_NUM_DIFFERENTIABLE]
    enabled = torch.is_grad_enabled()
    return NeedsGrad(*(enabled and isinstance(x, Tensor) and x.requires_grad for x in inputs))


def _shapes(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(empty_result(Problem(*arguments[:-1]), NeedsGrad(*arguments[-1])))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    problem, computed = Problem(*inputs[:-1]), Computed(*output)
    ctx.mark_non_differentiable(*computed[2:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(
        problem.retrieval_rows, problem.ranking_rows, *computed[Computed._fields.index("retrieval_row_grad") :]
    )
    ctx.hidden_shape, ctx.dtype = problem.hidden.shape, problem.hidden.dtype
    ctx.needs_grad = NeedsGrad(*inputs[-1])


def _scale(ctx: Any, retrieval: Tensor | None, ranking: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    retrieval_rows, ranking_rows, retrieval_row_grad, ranking_row_grad, *others = ctx.saved_tensors
    hidden_grad = None
    if ctx.needs_grad.hidden:
        hidden_grad = retrieval_row_grad.new_zeros(ctx.hidden_shape)
        if retrieval is not None:
            hidden_grad.index_add_(0, retrieval_rows, retrieval_row_grad * retrieval)
        if ranking is not None:
            hidden_grad.index_add_(0, ranking_rows, ranking_row_grad * ranking)
        hidden_grad = hidden_grad.to(ctx.dtype)
    grads: list[Tensor | None] = [hidden_grad]
    upstream = (retrieval, retrieval, retrieval, ranking, ranking)
    for is_needed, grad, factor in zip(ctx.needs_grad[1:], others, upstream, strict=True):
        grads.append((grad * factor).to(ctx.dtype) if is_needed and factor is not None else None)
    return (*grads, *[None] * (_NUM_INPUTS - len(grads)))


def _operator(name: str, run: Callable[[Problem, NeedsGrad], Computed]) -> Callable[..., tuple[Tensor, ...]]:
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return tuple(run(Problem(*arguments[:-1]), NeedsGrad(*arguments[-1])))

    operator = torch.library.custom_op(f"unigrf_kernels::{name}", forward, mutates_args=(), schema=_SCHEMA)
    operator.register_fake(_shapes)
    operator.register_autograd(_scale, setup_context=_save)
    return operator


def _run_torch(problem: Problem, needs_grad: NeedsGrad) -> Computed:
    from .torch_path import compute

    return compute(problem, needs_grad)


def _run_triton(problem: Problem, needs_grad: NeedsGrad) -> Computed:
    from .triton_path import compute

    return compute(problem, needs_grad)


_OPERATORS = {
    Implementation.TORCH: _operator("joint_loss_torch", _run_torch),
    Implementation.TRITON: _operator("joint_loss_triton", _run_triton),
}
