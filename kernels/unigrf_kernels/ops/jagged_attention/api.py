"""``jagged_attention``: signature, contract, choice of implementation."""

from __future__ import annotations

from torch import Tensor

from ..implementation import Implementation, resolve_implementation
from .checks import check_forward_only, check_operands, check_scores, check_triton
from .plan import AttentionPlan, plan_attention
from .reference import reference_attention
from .torch_last_tokens import last_tokens_attention
from .torch_path import blocked_attention


def jagged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    *,
    activation: str = "silu",
    scale: float,
    scaling_length: float | None = None,
    num_candidates: Tensor | None = None,
    window: int | None = None,
    position_bias: Tensor | None = None,
    time_bias: Tensor | None = None,
    query_times: Tensor | None = None,
    key_times: Tensor | None = None,
    max_length: int | None = None,
    query_offsets: Tensor | None = None,
    plan: AttentionPlan | None = None,
    implementation: Implementation | str = "auto",
    deterministic: bool = False,
) -> Tensor:
    """Causal attention over packed sequences.

    Sequence ``b`` owns the tokens ``offsets[b]:offsets[b + 1]`` and may be empty. Its last
    ``c = num_candidates[b]`` tokens are candidates, the ``h`` before them its history; token ``t`` has
    position ``pos(t) = min(t, h)``. A history token sees itself and what came before it; a candidate sees the
    whole history and itself, no other candidate. With ``window``, a key is visible only if
    ``pos(i) - pos(j) < window``. For a visible pair and head::

        s_ij  = scale * <q_i, k_j> + position_bias[head, min(pos(i) - pos(j), P - 1)]
                + time_bias[head, bucket(query_times[i] - key_times[j])]
        out_i = sum_j silu(s_ij) / scaling_length * v_j         activation "silu" (HSTU, arXiv 2402.17152)
        out_i = sum_j softmax_j(s_ij) * v_j                     activation "softmax"

    With ``query_offsets``, an inference mode without a backward, only the last tokens of each sequence ask: ``q``
    and ``query_times`` hold those alone, while ``k``, ``v`` and ``key_times`` hold all tokens, the keys and values
    of earlier ones kept from an earlier call. The result is what those tokens get in the whole pass::

        whole = jagged_attention(q, k, v, offsets, num_candidates=c, ...)                              # [T, H, D]
        last = jagged_attention(q[rows], k, v, offsets, num_candidates=c, query_offsets=m, ...)        # [Tq, H, D]
        # whole[rows] == last up to rounding, for rows = the last m[b + 1] - m[b] tokens of each sequence b

    with ``bucket(dt) = min(floor(log(max(1, |dt|)) / 0.301), num_buckets - 1)``, see `buckets`; times beyond
    ``2^62 - 1`` seconds from zero count as that.

    Args:
        q: ``[T, H, D]`` floating point; ``T`` tokens of all sequences, packed. ``[Tq, H, D]`` with
            ``query_offsets``.
        k: ``[T, Hkv, D]``, ``H`` a multiple of ``Hkv``; query head ``a`` uses key head ``a // (H / Hkv)``.
        v: ``[T, Hkv, D]``.
        offsets: ``[B + 1]`` int64, from 0 to ``T``.
        activation: ``"silu"`` or ``"softmax"``.
        scale: factor of the products.
        scaling_length: divisor of the silu weights. A constant of the model: were it the longest sequence of
            the batch, outputs would depend on who else is in the batch. None for softmax.
        num_candidates: ``[B]`` int64, at most the length of each sequence.
        window: positions that a token looks back, itself included; at least 1.
        position_bias: ``[H, P]`` floating point.
        time_bias: ``[H, num_buckets]`` floating point; needs both times.
        query_times: ``[T]`` int64, seconds: the moment at which token ``i`` asks; ``[Tq]`` with ``query_offsets``.
        key_times: ``[T]`` int64, seconds: the moment at which token ``j`` happened.
        max_length: upper bound on a sequence's length; spares CUDA a wait for the host.
        query_offsets: ``[B + 1]`` int64, from 0 to ``Tq``: sequence ``b`` owns the queries
            ``query_offsets[b]:query_offsets[b + 1]``, which belong to its last tokens; none up to all of them.
            None: every token asks.
        plan: `plan_attention` of the same structure, shared by the layers of a model so that what depends on
            the structure alone is derived once per batch. ``num_candidates``, ``window``, both times,
            ``max_length`` and ``query_offsets`` are then taken from it and need not be repeated.
        implementation: ``"auto"`` (Triton on CUDA, else torch), ``"triton"`` (fp32, bf16, fp16; ``D`` up to 256),
            ``"torch"``, ``"reference"``.
        deterministic: bit-equal results on repetition, also on CUDA; the CPU is always deterministic for a
            fixed number of threads.

    Returns:
        ``[T, H, D]`` in the dtype of ``q``; once differentiable in ``q``, ``k``, ``v`` and both biases. With
        ``query_offsets`` ``[Tq, H, D]``, not differentiable.

    Raises:
        ValueError, TypeError: an argument breaks this contract, the implementation cannot run here, or a gradient
            is asked for with ``query_offsets``.
    """
    if plan is None:
        plan = plan_attention(
            offsets,
            num_candidates=num_candidates,
            window=window,
            query_times=query_times,
            key_times=key_times,
            max_length=max_length,
            query_offsets=query_offsets,
        )
    else:
        plan.check_matches(offsets, num_candidates, window, query_times, key_times, max_length, query_offsets)
    check_operands(q, k, v, plan.offsets, plan.query_times, plan.key_times, plan.query_offsets)
    check_scores(q, activation, scale, scaling_length, position_bias, time_bias, plan.query_times)
    if plan.query_offsets is not None:
        check_forward_only(q, k, v, position_bias, time_bias)
    chosen = resolve_implementation("jagged_attention", implementation, q.device)
    if chosen is Implementation.TRITON:
        from .autograd import triton_attention

        check_triton(q)
        return triton_attention(
            q,
            k,
            v,
            plan.offsets,
            activation=activation,
            scale=scale,
            scaling_length=scaling_length,
            num_candidates=plan.num_candidates,
            window=plan.window,
            position_bias=position_bias,
            time_bias=time_bias,
            query_times=plan.asked,
            key_times=plan.happened,
            max_length=plan.max_length,
            query_offsets=plan.query_offsets,
            deterministic=deterministic,
        )
    if chosen is Implementation.REFERENCE:
        run = reference_attention
    else:
        run = blocked_attention if plan.query_offsets is None else last_tokens_attention
    return run(
        q,
        k,
        v,
        plan,
        scale=scale,
        scaling_length=scaling_length,
        position_bias=position_bias,
        time_bias=time_bias,
    )
