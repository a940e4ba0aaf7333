"""The ranking head, its binary cross entropy and all its gradients in one pass over the ranking rows."""

# Arguments of a kernel are typed by its launch.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl

from .triton_rows import load_vectors, log_one_plus, store_vectors


@triton.jit
def ranking_kernel(
    hidden,
    rows,
    labels,
    head_weight,
    head_bias,
    task_weights,
    logits,
    row_gradients,
    sq_norms,
    losses,
    counts,
    weight_partials,
    bias_partials,
    num_examples,
    num_tasks,
    D: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ROW_GRADIENT: tl.constexpr,
    HEAD_GRADIENT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid: any number of programs ``n``; program ``i`` takes the tiles ``i, i + n, i + 2 n, ...`` of examples.

    Writes logits ``[R, A]``, losses and counts of labels per example; with ROW_GRADIENT gradients of the hidden
    rows and their squared norms; with HEAD_GRADIENT each program's partial sum of the head's gradients.
    """
    task = tl.arange(0, BLOCK_A)
    is_task = task < num_tasks
    head = load_vectors(head_weight, task, is_task, D, BLOCK_D)
    bias = tl.load(head_bias + task, mask=is_task, other=0.0).to(tl.float32)
    weight = is_task.to(tl.float32)
    if task_weights is not None:
        weight = tl.load(task_weights + task, mask=is_task, other=0.0).to(tl.float32)
    weight_gradient = tl.zeros([BLOCK_A, BLOCK_D if HEAD_GRADIENT else 1], dtype=tl.float32)
    bias_gradient = tl.zeros([BLOCK_A], dtype=tl.float32)
    for first in range(tl.program_id(0) * BLOCK_R, num_examples, tl.num_programs(0) * BLOCK_R):
        example = first + tl.arange(0, BLOCK_R).to(tl.int64)
        valid = example < num_examples
        row = tl.load(rows + example, mask=valid, other=0)
        states = load_vectors(hidden, row, valid, D, BLOCK_D)
        logit = tl.dot(states, tl.trans(head), input_precision=PRECISION) + bias[None, :]
        inside = valid[:, None] & is_task[None, :]
        cell = example[:, None] * num_tasks + task[None, :]
        tl.store(logits + cell, logit, mask=inside)
        label = tl.load(labels + cell, mask=inside, other=float("nan")).to(tl.float32)
        present = label == label
        label = tl.where(present, label, 0.0)
        # exp() of a negative number only: it cannot overflow.
        small = tl.exp(-tl.abs(logit))
        loss = tl.maximum(logit, 0.0) - logit * label + log_one_plus(small)
        tl.store(losses + example, tl.sum(tl.where(present, loss * weight[None, :], 0.0), 1), mask=valid)
        tl.store(counts + example, tl.sum(present.to(tl.float32), 1), mask=valid)
        probability = tl.where(logit >= 0, 1.0, small) / (1.0 + small)
        dlogits = tl.where(present, (probability - label) * weight[None, :], 0.0)
        rounded = dlogits.to(states.dtype)
        if ROW_GRADIENT:
            gradient = tl.dot(rounded, head, input_precision=PRECISION)
            store_vectors(row_gradients, example, valid, gradient, D, BLOCK_D)
            tl.store(sq_norms + example, tl.sum(gradient * gradient, 1), mask=valid)
        if HEAD_GRADIENT:
            weight_gradient = tl.dot(tl.trans(rounded), states, weight_gradient, input_precision=PRECISION)
            bias_gradient += tl.sum(dlogits, 0)
    if HEAD_GRADIENT:
        index = tl.program_id(0) * num_tasks + task
        store_vectors(weight_partials, index, is_task, weight_gradient, D, BLOCK_D)
        tl.store(bias_partials + index, bias_gradient, mask=is_task)
