"""What all layers of a model share about one batch: which tokens see which, and at what times."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from .buckets import bounded_times
from .checks import check_structure
from .torch_bias import BlockBuckets
from .torch_blocks import Schedule
from .torch_schedule import make_schedule


@dataclass(frozen=True, eq=False)
class AttentionPlan:
    """Structure of one batch. Make it with `plan_attention`; layers that share it share its derived work.

    Attributes:
        offsets: ``[B + 1]`` int64.
        query_offsets: ``[B + 1]`` int64, or None where every token asks.
        num_candidates: ``[B]`` int64 or None.
        window: positions a token looks back, itself included, or None.
        query_times: ``[Tq]`` int64 or None; ``Tq`` is ``T`` without ``query_offsets``.
        key_times: ``[T]`` int64 or None.
        max_length: an upper bound on the tokens of a sequence, or None when nobody stated one.
        asked: ``query_times`` as `bounded_times`, of which differences are made.
        happened: ``key_times`` likewise.
    """

    offsets: Tensor
    num_candidates: Tensor | None
    window: int | None
    query_times: Tensor | None
    key_times: Tensor | None
    max_length: int | None
    query_offsets: Tensor | None = None
    asked: Tensor | None = None
    happened: Tensor | None = None
    _buckets: dict[int, BlockBuckets] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def schedule(self) -> Schedule:
        """Groups and blocks of the plain PyTorch path."""
        return make_schedule(self.offsets, self.num_candidates, self.window, self.query_times, self.key_times)

    def block_buckets(self, num_buckets: int) -> BlockBuckets:
        """Buckets of a time bias for the blocks of `schedule`."""
        assert self.asked is not None
        assert self.happened is not None
        if num_buckets not in self._buckets:
            self._buckets[num_buckets] = BlockBuckets(self.schedule, self.asked, self.happened, num_buckets)
        return self._buckets[num_buckets]

    def check_matches(
        self,
        offsets: Tensor,
        num_candidates: Tensor | None,
        window: int | None,
        query_times: Tensor | None,
        key_times: Tensor | None,
        max_length: int | None,
        query_offsets: Tensor | None,
    ) -> None:
        """Refuse arguments that contradict the plan; those that are None are taken from the plan.

        Raises:
            ValueError: a tensor is not the one that the plan was made for, or a number differs.
        """
        given = {
            "offsets": offsets,
            "query_offsets": query_offsets,
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
    query_offsets: Tensor | None = None,
) -> AttentionPlan:
    """Prepare the structure of a batch once, for all attention layers that run on it.

    Arguments are those of `jagged_attention`. The tensors must not change while the plan is in use.

    Raises:
        ValueError, TypeError: as `jagged_attention`.
    """
    check_structure(offsets, num_candidates, window, query_times, key_times, max_length, query_offsets)
    return AttentionPlan(
        offsets,
        num_candidates,
        window,
        query_times,
        key_times,
        max_length,
        query_offsets,
        asked=None if query_times is None else bounded_times(query_times),
        happened=None if key_times is None else bounded_times(key_times),
    )
