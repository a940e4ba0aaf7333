"""Counts of item pairs over the training events, as matrices that are the same on any number of ranks.

Counts are integers, so that a sum does not depend on how the users were dealt to the ranks. Legend: ``V`` items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from unigrf_dist.data import JaggedBatch
from unigrf_dist.ranks.collective import Collective

MOST_PAIRS = 30_000_000
"""Different pairs that a sparse matrix may hold: 16 bytes each and on every rank."""
DENSE_MOST_ITEMS = 8_000
"""Up to here counts lie in a dense matrix, 512 MB at this size, which is ten times as quick to fill and to ask."""
MOST_WORK = 10_000_000_000
"""Pairs of events that are counted at most, over all ranks: about ten minutes of one core."""
WEIGHT_ONE = 1 << 16
"""A transition to the very next event; others weigh less, rounded to integers of this unit."""

# Pairs of one piece before they are added up: 24 bytes each.
_PIECE_PAIRS = 4_000_000
# A multiplication of the dense product of users x items takes so much less time than one of the sparse product.
_DENSE_IS_QUICKER = 1_000

Triples = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Row, column and count of each pair."""
Counts: TypeAlias = "csr_array | NDArray[np.int64]"
"""``[V, V]`` int64, dense up to ``DENSE_MOST_ITEMS`` items."""


class TooManyPairs(Exception):
    """More different pairs than ``MOST_PAIRS``; raised on all ranks or on none."""


def transitions(batches: Iterable[JaggedBatch], num_items: int, *, first_gap: int, last_gap: int) -> Counts:
    """How often item ``j`` came ``gap`` events after item ``i``, each time with the weight ``1 / sqrt(gap)``.

    Args:
        batches: training events, this rank's users.
        num_items: ``V``.
        first_gap, last_gap: gaps that count, both included; 1 is the next event.

    Returns:
        Counts in units of ``1 / WEIGHT_ONE``, summed over ranks; collective.

    Raises:
        TooManyPairs: they would not fit.
    """

    def of_batch(batch: JaggedBatch) -> Iterator[Triples]:
        items, users = batch.item_ids.numpy(), batch.user_indices.numpy()
        for gap in range(first_gap, last_gap + 1):
            same = users[:-gap] == users[gap:]
            before, after = items[:-gap][same], items[gap:][same]
            yield before, after, np.full(before.size, round(WEIGHT_ONE / gap**0.5), dtype=np.int64)

    if num_items <= DENSE_MOST_ITEMS:
        return _dense_over_ranks(_dense_transitions(batches, num_items, of_batch))
    return _counted(batches, num_items, of_batch)


def co_occurrences(batches: Iterable[JaggedBatch], num_items: int) -> Counts:
    """How many users met both item ``i`` and item ``j``, repeated events once.

    Args:
        batches: training events, this rank's users.
        num_items: ``V``.

    Returns:
        Symmetric counts, the number of users of an item on the diagonal; summed over ranks; collective.

    Raises:
        TooManyPairs: they would not fit.
    """
    if num_items <= DENSE_MOST_ITEMS:
        return _dense_over_ranks(_dense_co_occurrences(batches, num_items))

    def of_batch(batch: JaggedBatch) -> Iterator[Triples]:
        return _products(batch, num_items)

    return _counted(batches, num_items, of_batch)


def work_of_co_occurrences(num_users: int, num_events: int, num_items: int) -> int:
    """A lower bound of the pairs of events that ``co_occurrences`` multiplies, from counts alone.

    Args:
        num_users, num_events: training users and events of the data set.
        num_items: ``V``.
    """
    # By Cauchy and Schwarz the squares of the lengths sum up to no less than this.
    sparse = num_events**2 // max(num_users, 1)
    dense = num_users * num_items**2 // _DENSE_IS_QUICKER
    return min(sparse, dense) if num_items <= DENSE_MOST_ITEMS else sparse


def _dense_transitions(
    batches: Iterable[JaggedBatch], num_items: int, pairs: Callable[[JaggedBatch], Iterator[Triples]]
) -> NDArray[np.int64]:
    total = np.zeros(num_items**2, dtype=np.int64)
    waiting: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def add() -> None:
        places, counts = (np.concatenate(each) for each in zip(*waiting, strict=True))
        # float64 holds these sums exactly: they stay far below 2^53.
        np.add(total, np.bincount(places, counts, minlength=total.size).astype(np.int64), out=total)

    for batch in batches:
        waiting += [(rows * num_items + columns, counts) for rows, columns, counts in pairs(batch)]
        # A pass over the whole matrix for fewer pairs would cost more than the pairs themselves.
        if sum(counts.size for _, counts in waiting) >= max(_PIECE_PAIRS, total.size // 4):
            add()
            waiting = []
    if waiting:
        add()
    return total.reshape(num_items, num_items)


def _dense_co_occurrences(batches: Iterable[JaggedBatch], num_items: int) -> NDArray[np.int64]:
    total = np.zeros((num_items, num_items), dtype=np.int64)
    for batch in batches:
        if batch.num_users * num_items**2 <= _DENSE_IS_QUICKER * int((batch.lengths**2).sum()):
            met = torch.zeros(batch.num_users, num_items)
            met[batch.user_indices, batch.item_ids] = 1
            # Counts below 2^24 are exact in float32, in any order of addition.
            total += (met.T @ met).numpy().astype(np.int64)
        else:
            for rows, columns, counts in _products(batch, num_items):
                total[rows, columns] += counts
    return total


def _dense_over_ranks(own: NDArray[np.int64]) -> NDArray[np.int64]:
    return Collective().sum(torch.from_numpy(own)).numpy()


def _products(batch: JaggedBatch, num_items: int) -> Iterator[Triples]:
    """Pairs of items of the same user; of each piece every pair once."""
    items, users = batch.item_ids.numpy(), batch.user_indices.numpy()
    # A product of a few users at a time: what it holds grows with the square of their histories.
    lengths = batch.lengths.numpy()
    if lengths.max(initial=0) ** 2 > MOST_PAIRS and _most_items(batch) ** 2 > MOST_PAIRS:
        raise TooManyPairs
    piece = np.cumsum(lengths**2) // _PIECE_PAIRS
    for each in np.unique(piece):
        here = (piece == each)[users]
        shape = (batch.num_users, num_items)
        met = csr_array((np.ones(here.sum(), dtype=np.int64), (users[here], items[here])), shape=shape)
        met.data[:] = 1
        product = (met.T @ met).tocoo()
        yield product.row, product.col, product.data


def _counted(
    batches: Iterable[JaggedBatch], num_items: int, pairs: Callable[[JaggedBatch], Iterator[Triples]]
) -> csr_array:
    try:
        own = _own_counts(batches, num_items, pairs)
    except TooManyPairs:
        own = None
    return _over_ranks(own, num_items)


def _own_counts(
    batches: Iterable[JaggedBatch], num_items: int, pairs: Callable[[JaggedBatch], Iterator[Triples]]
) -> csr_array:
    total = csr_array((num_items, num_items), dtype=np.int64)
    waiting: list[Triples] = []
    for batch in batches:
        for triples in pairs(batch):
            waiting.append(triples)
            if sum(each[0].size for each in waiting) >= _PIECE_PAIRS:
                total, waiting = total + _matrix(waiting, num_items), []
        # The sum over ranks has no fewer pairs than this part of it.
        if total.nnz > MOST_PAIRS:
            raise TooManyPairs
    return total + _matrix(waiting, num_items)


def _most_items(batch: JaggedBatch) -> int:
    pairs = torch.stack([batch.user_indices, batch.item_ids]).unique(dim=1)
    return int(pairs[0].bincount().max())


def _matrix(triples: list[Triples], num_items: int) -> csr_array:
    if not triples:
        return csr_array((num_items, num_items), dtype=np.int64)
    rows, columns, counts = (np.concatenate([each[i] for each in triples]) for i in range(3))
    return coo_array((counts, (rows, columns)), shape=(num_items, num_items)).tocsr()


def _over_ranks(own: csr_array | None, num_items: int) -> csr_array:
    """The sum of all ranks' matrices, a band of rows at a time; None is one that is too large; collective."""
    ranks = Collective()
    too_many = own is None or own.nnz > MOST_PAIRS
    if int(ranks.maximum(torch.tensor(int(too_many)))) or own is None:
        raise TooManyPairs
    if ranks.world_size == 1:
        return own
    total = csr_array((num_items, num_items), dtype=np.int64)
    num_bands = min(num_items, 4 * ranks.world_size)
    for band in range(num_bands):
        rows = slice(band * num_items // num_bands, (band + 1) * num_items // num_bands)
        part = own[rows].tocoo()
        triples = np.stack([part.row + rows.start, part.col, part.data], axis=1).astype(np.int64)
        everyone = np.concatenate([each.numpy() for each in ranks.gather_rows(torch.from_numpy(triples))])
        total += _matrix([(everyone[:, 0], everyone[:, 1], everyone[:, 2])], num_items)
        if total.nnz > MOST_PAIRS:
            raise TooManyPairs
    return total
