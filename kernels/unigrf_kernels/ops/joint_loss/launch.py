"""The arguments of each kernel by name, and its launch.

The AOT resource check takes its cases from the same functions, called on meta tensors.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..launching import launch_kernel
from .plan import Call, PairBuffers, split_length
from .problem import Computed
from .schedule import Tile


def direction_arguments(
    call: Call, vectors: Tensor, rows: Tensor | None, directions: Tensor, factor: float
) -> dict[str, Any]:
    """Arguments of `direction_kernel`."""
    return {
        "vectors": vectors,
        "rows": rows,
        "directions": directions,
        "count": len(directions),
        "factor": factor,
        "BLOCK": call.schedule.vectors.rows,
        "NORMALIZE": call.problem.normalize,
        **call.width,
    }


def stream_arguments(call: Call, buffers: PairBuffers, directions: Tensor) -> dict[str, Any]:
    """Arguments of `stream_kernel`."""
    problem, tile = call.problem, call.schedule.stream
    return {
        "queries": buffers.queries,
        "positive_ids": problem.positive_ids,
        "mask_rows": problem.negative_mask_rows,
        "directions": directions,
        "negative_ids": problem.negative_ids,
        "log_q": call.negative_log_q,
        "mask": problem.negative_mask,
        "split_max": buffers.split_max,
        "split_sum_exp": buffers.split_sum_exp,
        "weighted_sums": buffers.weighted_sums,
        "num_pairs": len(problem.positives),
        "num_columns": len(problem.negatives),
        "split_columns": split_length(len(problem.negatives), tile.columns, call.splits),
        "num_words": 0 if problem.negative_mask is None else problem.negative_mask.shape[1],
        "BLOCK_P": tile.rows,
        "BLOCK_K": tile.columns,
        "SHIFTED": call.shifted,
        "GRADIENT": buffers.weighted_sums is not None,
        "PRECISION": call.precision,
        **call.width,
    }


def finish_arguments(
    call: Call, buffers: PairBuffers, user_directions: Tensor | None, result: Computed
) -> dict[str, Any]:
    """Arguments of `finish_kernel`."""
    problem = call.problem
    has_user_negatives = user_directions is not None
    return {
        "hidden": problem.hidden,
        "rows": problem.retrieval_rows,
        "positives": problem.positives,
        "positive_ids": problem.positive_ids if has_user_negatives else None,
        "weights": problem.retrieval_weights,
        "positive_log_q": call.positive_log_q,
        "users": problem.retrieval_users if has_user_negatives else None,
        "user_directions": user_directions,
        "user_negative_ids": problem.user_negative_ids,
        "split_max": buffers.split_max,
        "split_sum_exp": buffers.split_sum_exp,
        "weighted_sums": buffers.weighted_sums,
        "user_exponents": buffers.user_exponents,
        "losses": buffers.losses,
        "row_max": buffers.row_max,
        "row_scale": buffers.row_scale,
        "row_gradients": result.retrieval_row_grad if call.needs_grad.hidden else None,
        "sq_norms": buffers.sq_norms,
        "positive_gradients": result.positives_grad if call.needs_grad.positives else None,
        "num_pairs": len(problem.positives),
        "num_splits": call.splits,
        "num_user_negatives": 0 if user_directions is None else user_directions.shape[1],
        "scale": call.scale,
        "inverse_temperature": 1 / problem.temperature,
        "BLOCK_P": call.schedule.vectors.rows,
        "NORMALIZE": problem.normalize,
        "ROW_GRADIENT": call.needs_grad.hidden,
        "POSITIVE_GRADIENT": call.needs_grad.positives,
        **call.width,
    }


def negative_gradient_arguments(
    call: Call, buffers: PairBuffers, directions: Tensor, partials: Tensor
) -> dict[str, Any]:
    """Arguments of `negative_gradient_kernel`; ``partials`` ``[S, K, D]``."""
    problem, tile = call.problem, call.schedule.negatives
    mask = problem.negative_mask
    return {
        "queries": buffers.queries,
        "positive_ids": problem.positive_ids,
        "mask_rows": problem.negative_mask_rows,
        "row_max": buffers.row_max,
        "row_scale": buffers.row_scale,
        "directions": directions,
        "negative_ids": problem.negative_ids,
        "log_q": call.negative_log_q,
        "mask": mask,
        "partials": partials,
        "num_pairs": len(problem.positives),
        "num_columns": len(directions),
        "split_pairs": split_length(len(problem.positives), tile.rows, call.gradient_splits),
        "num_words": 0 if mask is None else mask.shape[1],
        "BLOCK_P": tile.rows,
        "BLOCK_K": tile.columns,
        "PRECISION": call.precision,
        **call.width,
    }


def user_negative_gradient_arguments(
    call: Call, buffers: PairBuffers, order: Tensor, user_offsets: Tensor, gradients: Tensor
) -> dict[str, Any]:
    """Arguments of `user_negative_gradient_kernel`; ``gradients`` ``[U, M, D]``."""
    tile = call.schedule.user_negatives
    return {
        "queries": buffers.queries,
        "row_max": buffers.row_max,
        "row_scale": buffers.row_scale,
        "order": order,
        "user_offsets": user_offsets,
        "user_exponents": buffers.user_exponents,
        "gradients": gradients,
        "num_user_negatives": gradients.shape[1],
        "BLOCK_P": tile.rows,
        "BLOCK_K": tile.columns,
        "PRECISION": call.precision,
        **call.width,
    }


def reduce_arguments(call: Call, partials: Tensor, vectors: Tensor, gradients: Tensor) -> dict[str, Any]:
    """Arguments of `reduce_kernel`: ``partials`` ``[S, N, D]``, ``vectors`` and ``gradients`` ``[N, D]``."""
    return {
        "partials": partials,
        "vectors": vectors,
        "gradients": gradients,
        "count": len(vectors),
        "num_splits": len(partials),
        "BLOCK": call.schedule.vectors.rows,
        "NORMALIZE": call.problem.normalize,
        **call.width,
    }


def merge_arguments(
    call: Call, sorted_rows: Tensor, order: Tensor, gradients: Tensor, sq_norms: Tensor
) -> dict[str, Any]:
    """Arguments of `merge_kernel`."""
    return {
        "sorted_rows": sorted_rows,
        "order": order,
        "gradients": gradients,
        "sq_norms": sq_norms,
        "count": len(order),
        "BLOCK": call.schedule.vectors.rows,
        **call.width,
    }


def ranking_arguments(
    call: Call,
    result: Computed,
    sq_norms: Tensor | None,
    losses: Tensor,
    counts: Tensor,
    weight_partials: Tensor | None,
    bias_partials: Tensor | None,
) -> dict[str, Any]:
    """Arguments of `ranking_kernel`."""
    problem = call.problem
    return {
        "hidden": problem.hidden,
        "rows": problem.ranking_rows,
        "labels": problem.labels,
        "head_weight": problem.head_weight,
        "head_bias": problem.head_bias,
        "task_weights": problem.task_weights,
        "logits": result.ranking_logits,
        "row_gradients": result.ranking_row_grad if call.needs_grad.hidden else None,
        "sq_norms": sq_norms,
        "losses": losses,
        "counts": counts,
        "weight_partials": weight_partials,
        "bias_partials": bias_partials,
        "num_examples": len(problem.ranking_rows),
        "num_tasks": len(problem.head_bias),
        "BLOCK_R": call.schedule.ranking.rows,
        "BLOCK_A": 16,
        "ROW_GRADIENT": call.needs_grad.hidden,
        "HEAD_GRADIENT": weight_partials is not None,
        "PRECISION": call.precision,
        **call.width,
    }


def launch(kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], tile: Tile) -> None:
    """Launch with the warps and the pipeline of ``tile``."""
    launch_kernel(kernel, grid, arguments, num_warps=tile.num_warps, num_stages=tile.num_stages)
