"""Which negatives the softmax must leave out for an entry, as the bit masks that ``joint_loss`` takes.

Evaluation removes what a user has met from the ranking. A softmax that keeps those items as negatives spends its
capacity on pushing them away, and what is like them with them, from the very users who like their kind.

Shapes: ``E`` events, ``B`` users, ``K`` negatives, ``W = ceil(K / 32)`` words of 32 bits.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.objective.negatives import Negatives

_WORD_BITS = 32


def seen_negative_masks(batch: JaggedBatch, negatives: Negatives, *, num_items: int) -> Tensor:
    """``[E, W]`` int32, at each event the negatives that its user has met by then.

    Those before the batch's window count where the batch holds them.
    """
    users = torch.arange(batch.num_users, device=batch.device)
    of_event = users.repeat_interleave(batch.lengths, output_size=batch.num_events)
    seen_users, items = (torch.cat(parts) for parts in zip(*seen_items(batch), strict=True))
    # What lies before the window has been met at the window's first event.
    events = torch.arange(batch.num_events, device=batch.device)
    seen_at = torch.cat([batch.offsets[seen_users[: len(items) - len(events)]], events])
    is_first = _first_occurrences(seen_users * num_items + items)
    met = torch.zeros(batch.num_events, _num_words(negatives.ids), dtype=torch.int32, device=batch.device)
    if negatives.distinct:
        word, bit = _place(torch.where(is_first, items, -1), negatives, num_items)
        met.index_put_((seen_at, word), bit, accumulate=True)
    else:
        met.index_add_(0, seen_at, torch.where(is_first[:, None], _matching_columns(items, negatives.ids), 0))
    # A bit is set once per user, so sums are unions; what runs over from user to user modulo 2^32 cancels.
    running = torch.nn.functional.pad(met.cumsum(0, dtype=torch.int32), (0, 0, 1, 0))
    return running[1:] - running[batch.offsets[:-1]][of_event]


def above_threshold_masks(above_threshold_ids: Tensor, negatives: Negatives, *, num_items: int) -> Tensor:
    """``[B, C]`` items, -1 for none → ``[B, W]`` int32, the negatives that are among each user's."""
    if not negatives.distinct:
        columns = _matching_columns(above_threshold_ids.flatten(), negatives.ids)
        return reduce(torch.bitwise_or, columns.unflatten(0, above_threshold_ids.shape).unbind(1))
    liked = torch.zeros(
        len(above_threshold_ids), _num_words(negatives.ids), dtype=torch.int32, device=above_threshold_ids.device
    )
    for word, bit in zip(
        *(part.unbind(1) for part in _place(above_threshold_ids, negatives, num_items)), strict=True
    ):
        there = liked.gather(1, word[:, None])
        liked.scatter_(1, word[:, None], there | bit[:, None])
    return liked


def _place(items: Tensor, negatives: Negatives, num_items: int) -> tuple[Tensor, Tensor]:
    """Word and bit of each item among distinct negatives; no bit for -1 and for what is no negative."""
    column = torch.full((num_items + 1,), -1, device=items.device)  # index -1 falls on the spare place at the end
    column[negatives.ids] = torch.arange(negatives.ids.numel(), device=items.device)
    place = column[items]
    return place.clamp_min(0) // _WORD_BITS, torch.where(place >= 0, _bits(items.device)[place % _WORD_BITS], 0)


def _matching_columns(items: Tensor, negative_ids: Tensor) -> Tensor:
    """``[N]`` items → ``[N, W]`` int32, the negatives that are each of them."""
    padded = torch.nn.functional.pad(negative_ids, (0, -negative_ids.numel() % _WORD_BITS), value=-1)
    ids, bits = padded.view(-1, _WORD_BITS), _bits(items.device)
    found = torch.zeros(items.numel(), len(ids), dtype=torch.int32, device=items.device)
    for place in range(_WORD_BITS):
        found |= torch.where((items[:, None] == ids[:, place]) & (ids[:, place] >= 0), bits[place], 0)
    return found


def seen_items(batch: JaggedBatch) -> list[tuple[Tensor, Tensor]]:
    """Pairs of user and item: those before the window, where the batch holds them, and those of the events."""
    users = torch.arange(batch.num_users, device=batch.device)
    met = [(users.repeat_interleave(batch.lengths, output_size=batch.num_events), batch.item_ids)]
    if batch.prior_item_ids is not None and batch.prior_offsets is not None:
        older = users.repeat_interleave(batch.prior_offsets.diff(), output_size=batch.prior_item_ids.numel())
        met.insert(0, (older, batch.prior_item_ids))
    return met


def _first_occurrences(keys: Tensor) -> Tensor:
    """``[N]`` bool, whether no equal key comes before."""
    ordered, order = keys.sort(stable=True)
    is_first = torch.ones_like(keys, dtype=torch.bool)
    is_first[order[1:]] = ordered[1:] != ordered[:-1]
    return is_first


def _num_words(negative_ids: Tensor) -> int:
    return -(-negative_ids.numel() // _WORD_BITS)


def _bits(device: torch.device) -> Tensor:
    """``[32]`` int32, each bit of a word; the last is the sign."""
    one = torch.ones((), dtype=torch.int32, device=device)
    return one << torch.arange(_WORD_BITS, dtype=torch.int32, device=device)
