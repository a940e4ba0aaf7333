"""The Triton path: the order of the kernels, their buffers, and the few sums that PyTorch computes.

No kernel adds with atomics and every sum has a fixed order, so results are bit-equal on repetition.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .launch import (
    direction_arguments,
    finish_arguments,
    launch,
    merge_arguments,
    negative_gradient_arguments,
    ranking_arguments,
    reduce_arguments,
    stream_arguments,
    user_negative_gradient_arguments,
)
from .plan import Call, PairBuffers, ceil_div, new_pair_buffers, plan_call
from .problem import Computed, NeedsGrad, Problem, empty_result, exact_sum
from .schedule import Schedule, architecture, choose_schedule, num_processors
from .triton_finish import finish_kernel
from .triton_negative_gradient import negative_gradient_kernel, user_negative_gradient_kernel
from .triton_ranking import ranking_kernel
from .triton_rows import direction_kernel, merge_kernel, reduce_kernel
from .triton_stream import stream_kernel


def compute(problem: Problem, needs_grad: NeedsGrad, schedule: Schedule | None = None) -> Computed:
    """Both losses and the gradients that ``needs_grad`` asks for.

    Args:
        problem: arguments that passed `check_problem`.
        needs_grad: which gradients are computed.
        schedule: tiles to use instead of the shipped ones.
    """
    hidden = problem.hidden
    if schedule is None:
        processors = num_processors(hidden.device)
        schedule = choose_schedule(
            architecture(hidden.device), hidden.dtype, hidden.shape[1], num_processors=processors
        )
    call = plan_call(problem, needs_grad, schedule)
    result = empty_result(problem, needs_grad)
    return result._replace(**_retrieval(call, result), **_ranking(call, result))


def _retrieval(call: Call, result: Computed) -> dict[str, Tensor]:
    """The retrieval fields of `Computed` that are not written in place."""
    problem, vector_tile = call.problem, call.schedule.vectors
    buffers = new_pair_buffers(call)
    num_pairs = len(problem.positives)
    _directions(call, problem.hidden, problem.retrieval_rows, buffers.queries, call.scale)
    shared = user_directions = None
    if call.splits:
        shared = _unit(call, problem.negatives)
        tile = call.schedule.stream
        tiles = ceil_div(num_pairs, tile.rows)
        launch(stream_kernel, (tiles, call.splits), stream_arguments(call, buffers, shared), tile)
    if problem.user_negatives is not None:
        user_directions = _unit(call, problem.user_negatives)
    tiles = ceil_div(num_pairs, vector_tile.rows)
    launch(finish_kernel, (tiles,), finish_arguments(call, buffers, user_directions, result), vector_tile)
    if call.needs_grad.negatives and shared is not None:
        _negative_gradient(call, buffers, shared, result.negatives_grad)
    if call.needs_grad.user_negatives and user_directions is not None:
        _user_negative_gradient(call, buffers, result.user_negatives_grad)
    weights = problem.retrieval_weights
    # new_tensor would copy a number of the host's, for which the host waits; new_full is a kernel.
    count = buffers.losses.new_full((), num_pairs) if weights is None else exact_sum(weights.float())
    return {
        "retrieval_sum": exact_sum(buffers.losses),
        "retrieval_count": count,
        "retrieval_sq_norm": _merge(call, problem.retrieval_rows, result.retrieval_row_grad, buffers.sq_norms),
    }


def _unit(call: Call, vectors: Tensor) -> Tensor:
    """Directions of ``vectors``: unit vectors, or the vectors themselves if they are not normalised."""
    if not call.problem.normalize:
        return vectors
    directions = torch.empty_like(vectors)
    width = vectors.shape[-1]
    _directions(call, vectors.view(-1, width), None, directions.view(-1, width), 1.0)
    return directions


def _directions(call: Call, vectors: Tensor, rows: Tensor | None, directions: Tensor, factor: float) -> None:
    tile = call.schedule.vectors
    grid = (ceil_div(len(directions), tile.rows),)
    launch(direction_kernel, grid, direction_arguments(call, vectors, rows, directions, factor), tile)


def _negative_gradient(call: Call, buffers: PairBuffers, directions: Tensor, gradients: Tensor) -> None:
    if call.gradient_splits == 0:
        gradients.zero_()
        return
    tile = call.schedule.negatives
    partials = gradients.new_empty(call.gradient_splits, *gradients.shape)
    grid = (ceil_div(len(gradients), tile.columns), call.gradient_splits)
    arguments = negative_gradient_arguments(call, buffers, directions, partials)
    launch(negative_gradient_kernel, grid, arguments, tile)
    _reduce(call, partials, call.problem.negatives, gradients)


def _user_negative_gradient(call: Call, buffers: PairBuffers, gradients: Tensor) -> None:
    users, vectors = call.problem.retrieval_users, call.problem.user_negatives
    assert users is not None
    assert vectors is not None
    tile = call.schedule.user_negatives
    num_users, num_user_negatives, width = gradients.shape
    sorted_users, order = users.sort(stable=True)
    user_offsets = torch.searchsorted(sorted_users, torch.arange(num_users + 1, device=users.device))
    partials = torch.empty_like(gradients)
    # Users along the first axis: the second takes at most 65,535.
    grid = (num_users, ceil_div(num_user_negatives, tile.columns))
    arguments = user_negative_gradient_arguments(call, buffers, order, user_offsets, partials)
    launch(user_negative_gradient_kernel, grid, arguments, tile)
    _reduce(call, partials.view(1, -1, width), vectors.view(-1, width), gradients.view(-1, width))


def _reduce(call: Call, partials: Tensor, vectors: Tensor, gradients: Tensor) -> None:
    tile = call.schedule.vectors
    grid = (ceil_div(len(vectors), tile.rows),)
    launch(reduce_kernel, grid, reduce_arguments(call, partials, vectors, gradients), tile)


def _merge(call: Call, rows: Tensor, gradients: Tensor, sq_norms: Tensor | None) -> Tensor:
    """Squared norm of a task's hidden gradient; gradients that share a row are added up first, in place."""
    if sq_norms is None:
        return call.problem.hidden.new_full((), torch.nan, dtype=torch.float32)
    tile = call.schedule.vectors
    # A radix sort of 4-byte keys takes half the passes of 8-byte ones.
    sorted_rows, order = (rows.int() if len(call.problem.hidden) < 2**31 else rows).sort(stable=True)
    grid = (ceil_div(len(order), tile.rows),)
    launch(merge_kernel, grid, merge_arguments(call, sorted_rows, order, gradients, sq_norms), tile)
    return exact_sum(sq_norms)


def _ranking(call: Call, result: Computed) -> dict[str, Tensor]:
    """The ranking fields of `Computed` that are not written in place."""
    problem, needs_grad, tile = call.problem, call.needs_grad, call.schedule.ranking
    num_examples, num_tasks = problem.labels.shape
    losses = problem.hidden.new_empty(num_examples, dtype=torch.float32)
    counts = torch.empty_like(losses)
    sq_norms = torch.empty_like(losses) if needs_grad.hidden else None
    programs = min(ceil_div(num_examples, tile.rows), call.schedule.programs)
    weight_partials = bias_partials = None
    if needs_grad.head_weight or needs_grad.head_bias:
        weight_partials = losses.new_empty(programs, *problem.head_weight.shape)
        bias_partials = losses.new_empty(programs, num_tasks)
    arguments = ranking_arguments(call, result, sq_norms, losses, counts, weight_partials, bias_partials)
    launch(ranking_kernel, (programs,), arguments, tile)
    fields = {
        "ranking_sum": exact_sum(losses),
        "ranking_count": exact_sum(counts),
        "ranking_sq_norm": _merge(call, problem.ranking_rows, result.ranking_row_grad, sq_norms),
    }
    if needs_grad.head_weight and weight_partials is not None:
        fields["head_weight_grad"] = weight_partials.sum(0)
    if needs_grad.head_bias and bias_partials is not None:
        fields["head_bias_grad"] = bias_partials.sum(0)
    return fields
