"""New tokens behind tokens whose keys and values were kept: what serving runs a backbone with.

Shapes: ``B`` sequences, ``P`` kept tokens, ``N`` new tokens, ``T = P + N``; ``G`` key heads, ``K`` head width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unigrf_kernels import AttentionPlan, plan_attention


class KeysValues(NamedTuple):
    """What one block keeps of the tokens it has seen, packed by sequence, rotary positions applied.

    Attributes:
        k: ``[P, G, K]`` keys.
        v: ``[P, G, K]`` values.
    """

    k: Tensor
    v: Tensor


@dataclass(frozen=True)
class NewTokens:
    """Where new tokens stand behind the kept ones. Make it with `new_tokens`, once for all blocks.

    Attributes:
        token_positions: ``[N]`` int64, index of each new token in its sequence; candidates share one.
        order: ``[T]`` int64: row of each token in the kept tokens followed by the new ones.
        attention: over all tokens, with the new ones as queries. Its ``offsets`` and ``key_times`` are those of
            the kept tokens in the next call.
    """

    token_positions: Tensor
    order: Tensor
    attention: AttentionPlan

    def append(self, kept: KeysValues | None, new: KeysValues) -> KeysValues:
        """``[T, G, K]`` keys and values of all tokens, from ``[P, G, K]`` kept and ``[N, G, K]`` new ones."""
        if kept is None:
            return new
        joined = KeysValues(*map(torch.cat, zip(kept, new, strict=True)))
        # The tokens of one sequence stand in their order already.
        return (
            joined
            if self.num_sequences == 1
            else KeysValues(*(each.index_select(0, self.order) for each in joined))
        )

    @property
    def num_sequences(self) -> int:
        """``B``."""
        return self.attention.offsets.numel() - 1


def new_tokens(
    *,
    kept_offsets: Tensor,
    kept_times: Tensor,
    offsets: Tensor,
    query_times: Tensor,
    key_times: Tensor,
    num_candidates: Tensor | None = None,
) -> NewTokens:
    """Lay out new tokens behind kept ones. Candidates are new tokens and are not to be kept.

    Args:
        kept_offsets: ``[B + 1]`` int64, bounds of each sequence's kept tokens, which are all history.
        kept_times: ``[P]`` int64, seconds: times of the kept tokens' events.
        offsets: ``[B + 1]`` int64, bounds of each sequence's new tokens.
        query_times: ``[N]`` int64, seconds: the moments for which the new tokens predict.
        key_times: ``[N]`` int64, seconds: times of the new tokens' events.
        num_candidates: ``[B]`` int64, how many of each sequence's new tokens, the last ones, are candidates.
    """
    device = offsets.device
    kept_lengths, new_lengths = kept_offsets.diff(), offsets.diff()
    whole = kept_offsets + offsets
    sequence = torch.repeat_interleave(whole.diff(), output_size=kept_times.numel() + key_times.numel())
    index = torch.arange(sequence.numel(), device=device) - whole[sequence]
    behind = index - kept_lengths[sequence]
    order = torch.where(
        behind < 0, kept_offsets[sequence] + index, kept_times.numel() + offsets[sequence] + behind
    )
    user = torch.repeat_interleave(new_lengths, output_size=key_times.numel())
    position = torch.arange(user.numel(), device=device) - offsets[user] + kept_lengths[user]
    if num_candidates is not None:
        position = torch.minimum(position, (kept_lengths + new_lengths - num_candidates)[user])
    attention = plan_attention(
        whole,
        num_candidates=num_candidates,
        query_times=query_times,
        key_times=torch.cat([kept_times, key_times]).index_select(0, order),
        query_offsets=offsets,
    )
    return NewTokens(position, order, attention)


def extend_blocks(
    blocks: Iterable[Any], tokens: Tensor, layout: Any, kept: Sequence[KeysValues] | None
) -> tuple[Tensor, list[KeysValues]]:
    """Run blocks that have an ``extend`` one after the other; arguments and results as `Backbone.extend`."""
    keys = []
    for index, block in enumerate(blocks):
        tokens, block_keys = block.extend(tokens, layout, None if kept is None else kept[index])
        keys.append(block_keys)
    return tokens, keys
