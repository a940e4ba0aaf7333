"""What all layers of a model share about one batch: who sees whom, and when."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .checks import check_structure


@dataclass(frozen=True, eq=False)
class AttentionPlan:
    """Structure of one batch. Make it with `plan_attention`; layers that share it share its derived work.

    Attributes:
        offsets: ``[B + 1]`` int64.
        num_candidates: ``[B]`` int64 or None.
        window: positions a token looks back, itself included, or None.
        query_times: ``[T]`` int64 or None.
        key_times: ``[T]`` int64 or None.
        max_length: an upper bound on the tokens of a sequence, or None when nobody stated one.
    """

    offsets: Tensor
    num_candidates: Tensor | None
    window: int | None
    query_times: Tensor | None
    key_times: Tensor | None
    max_length: int | None

    def check_matches(
        self,
        offsets: Tensor,
        num_candidates: Tensor | None,
        window: int | None,
        query_times: Tensor | None,
        key_times: Tensor | None,
        max_length: int | None,
    ) -> None:
        """Refuse arguments that contradict the plan; those left out (None) are the plan's.

        Raises:
            ValueError: a tensor is not the one that the plan was made for, or a number differs.
        """
        given = {
            "offsets": offsets,
            "num_candidates": num_candidates,
            "query_times": query_times,
            "key_times": key_times,
        }
        for name, tensor in given.items():
            if tensor is not None and tensor is not getattr(self, name):
                raise ValueError(f"{name} must be the tensor that plan was made for, got another one")
        for name, number in (("window", window), ("max_length", max_length)):
            if number is not None and number != getattr(self, name):
                raise ValueError(f"{name} must be {getattr(self, name)} like plan's, got {number}")


def plan_attention(
    offsets: Tensor,
    *,
    num_candidates: Tensor | None = None,
    window: int | None = None,
    query_times: Tensor | None = None,
    key_times: Tensor | None = None,
    max_length: int | None = None,
) -> AttentionPlan:
    """Prepare the structure of a batch once, for all attention layers that run on it.

    Arguments are those of `jagged_attention`. The tensors must not change while the plan is in use.

    Raises:
        ValueError, TypeError: as `jagged_attention`.
    """
    check_structure(offsets, num_candidates, window, query_times, key_times, max_length)
    return AttentionPlan(offsets, num_candidates, window, query_times, key_times, max_length)
