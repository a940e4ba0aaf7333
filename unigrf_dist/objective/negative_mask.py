"""Which negatives the softmax must not count for a query, as the bit masks that ``joint_loss`` takes.

Evaluation removes what a user has seen from the ranking. A softmax that keeps those items as negatives spends its
capacity on pushing them away, and what is like them with them, from the very users who like their kind.

A mask is a row of bits, one per negative: bit ``k % 32`` of word ``k // 32`` is set if negative ``k`` is masked.

Shapes: ``E`` events, ``B`` users, ``C`` candidates per user, ``K`` negatives, ``W = ceil(K / 32)`` words, ``S``
pairs of user and seen item.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.objective.negatives import Negatives
from unigrf_dist.objective.seen import seen_items

_WORD_BITS = 32


def seen_negative_masks(batch: JaggedBatch, negatives: Negatives, *, num_items: int) -> Tensor:
    """``[E, W]`` int32, for each event the negatives that its user has seen by then, that event included.

    Prior history counts where the batch holds it.

    A row is the union of what the user saw at each event so far. Unions are made by addition: every item sets its
    bit only where its user sees it first, so no bit is set twice within a user, and a running sum over all events
    minus the sum before the user's first event is the union. Sums may overflow from one user to the next; they are
    taken modulo 2^32, so the subtraction still gives the exact bits.
    """
    (seen_users, items), seen_at = _seen_pairs(batch), _seen_at(batch)  # [S] each
    is_first = _first_occurrences(seen_users * num_items + items)  # [S]
    new_bits = torch.zeros(batch.num_events, _num_words(negatives.ids), dtype=torch.int32, device=batch.device)
    if negatives.distinct:
        # An item is one negative at most: one bit to set, wherever it stands.
        word, bit = _word_and_bit(torch.where(is_first, items, -1), negatives, num_items)
        new_bits.index_put_((seen_at, word), bit, accumulate=True)
    else:
        # An item may be several negatives: its whole row of bits.
        new_bits.index_add_(0, seen_at, torch.where(is_first[:, None], _bits_of_items(items, negatives.ids), 0))
    running = torch.nn.functional.pad(new_bits.cumsum(0, dtype=torch.int32), (0, 0, 1, 0))  # [E + 1, W]
    return running[1:] - running[batch.offsets[:-1]][batch.user_indices]


def above_threshold_masks(ids: Tensor, negatives: Negatives, *, num_items: int) -> Tensor:
    """``[B, C]`` items, -1 for none → ``[B, W]`` int32, the negatives that are among each user's items."""
    if not negatives.distinct:
        bits = _bits_of_items(ids.flatten(), negatives.ids)
        return reduce(torch.bitwise_or, bits.unflatten(0, ids.shape).unbind(1))
    masks = torch.zeros(len(ids), _num_words(negatives.ids), dtype=torch.int32, device=ids.device)
    # One candidate of all users at a time: two candidates of a user may share a word, and a scatter writes only
    # one.
    words, bits = _word_and_bit(ids, negatives, num_items)
    for word, bit in zip(words.unbind(1), bits.unbind(1), strict=True):
        present = masks.gather(1, word[:, None])
        masks.scatter_(1, word[:, None], present | bit[:, None])
    return masks


def _seen_pairs(batch: JaggedBatch) -> tuple[Tensor, Tensor]:
    """``[S]`` users and ``[S]`` items: prior history first, then the events."""
    users, items = zip(*seen_items(batch), strict=True)
    return torch.cat(users), torch.cat(items)


def _seen_at(batch: JaggedBatch) -> Tensor:
    """``[S]`` int64, the event at which each pair counts as seen: prior history at the user's first event."""
    *prior, _ = seen_items(batch)
    events = torch.arange(batch.num_events, device=batch.device)
    return torch.cat([*(batch.offsets[users] for users, _ in prior), events])


def _word_and_bit(items: Tensor, negatives: Negatives, num_items: int) -> tuple[Tensor, Tensor]:
    """Word and bit of each item among distinct negatives; bit 0 for -1 and for items that are no negatives."""
    column_of_item = torch.full((num_items + 1,), -1, device=items.device)  # index -1 falls on the spare last one
    column_of_item[negatives.ids] = torch.arange(negatives.ids.numel(), device=items.device)
    column = column_of_item[items]
    bits = _bits(items.device)[column % _WORD_BITS]
    return column.clamp_min(0) // _WORD_BITS, torch.where(column >= 0, bits, 0)


def _bits_of_items(items: Tensor, negative_ids: Tensor) -> Tensor:
    """``[N]`` items → ``[N, W]`` int32, the negatives that are each of them."""
    padded = torch.nn.functional.pad(negative_ids, (0, -negative_ids.numel() % _WORD_BITS), value=-1)
    ids, bits = padded.view(-1, _WORD_BITS), _bits(items.device)
    masks = torch.zeros(items.numel(), len(ids), dtype=torch.int32, device=items.device)
    # Bit by bit, so that no [N, K] matrix is made.
    for index in range(_WORD_BITS):
        masks |= torch.where((items[:, None] == ids[:, index]) & (ids[:, index] >= 0), bits[index], 0)
    return masks


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
