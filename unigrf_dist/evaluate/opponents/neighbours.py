"""Retrieval by neighbours and by a linear autoencoder, each under the few settings that it is tried with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from unigrf_dist.data import JaggedBatch
from unigrf_dist.evaluate.opponents.item_pairs import WEIGHT_ONE, transitions
from unigrf_dist.evaluate.opponents.item_to_item import ItemToItem
from unigrf_dist.ranks.collective import Collective

EASE_MOST_ITEMS = 8_000
"""EASE inverts a dense matrix of items × items: 512 MB of float64 at this size."""

# Transitions: gaps that count, damping of popular items, half-lives in events, events asked with.
_GAPS = (10, 40)
_DAMPING = (0.3, 0.6)
_TRANSITION_HALF_LIVES = (1, 3, 8)
_TRANSITION_EVENTS = 30
# Neighbours and EASE: nearest items that are kept, L2 penalties, half-lives in events, events asked with.
_NEAREST = (50, 200)
_PENALTIES = (100, 400)
_HALF_LIVES = (2, 5, 15)
_EVENTS = 60
_ROUNDING = 2.0**32

Events = Callable[[], Iterable[JaggedBatch]]
"""Training events of this rank's users, from the start at every call."""


def transition_knn(events: Events, num_items: int) -> Iterator[ItemToItem]:
    """Items that followed within a few gaps: ``score[j] = sum of w(i) T[i, j] / sqrt(out[i]) / in[j] ** damping``.

    ``out`` and ``in`` are the row and column sums of ``T``, the weighted counts of ``transitions``.

    Args:
        events: training events, read once for every range of gaps.
        num_items: size of the catalogue.

    Raises:
        TooManyPairs: while iterating; the transitions would not fit.
    """
    counts, reached = csr_array((num_items, num_items), dtype=np.int64), 0
    for gaps in _GAPS:
        counts = counts + transitions(events(), num_items, first_gap=reached + 1, last_gap=gaps)
        reached = gaps
        matrix = counts.astype(np.float64) / WEIGHT_ONE
        out, into = (np.maximum(np.asarray(matrix.sum(axis)), 1.0) for axis in (1, 0))
        for damping, half_life in product(_DAMPING, _TRANSITION_HALF_LIVES):
            yield ItemToItem(
                matrix,
                half_life,
                _TRANSITION_EVENTS,
                item_weight=out**-0.5,
                score_weight=into**-damping,
                settings=f"{gaps} gaps, damping {damping}, half-life {half_life}",
            )


def item_knn(together: csr_array) -> Iterator[ItemToItem]:
    """Cosine of the users of two items, of each item the nearest few (Sarwar et al., WWW 2001).

    Args:
        together: counts of ``co_occurrences``.
    """
    cosine = _cosines(together)
    for nearest in _NEAREST:
        # Cosines are symmetric: the nearest of item j are cut in row j and used in column j.
        matrix = _largest_of_rows(cosine, nearest).T.tocsr()
        for half_life in _HALF_LIVES:
            settings = f"{nearest} nearest, half-life {half_life}"
            yield ItemToItem(matrix, half_life, _EVENTS, settings=settings)


def ease(together: csr_array) -> Iterator[ItemToItem]:
    """The linear autoencoder without self-similarity in closed form (Steck, WWW 2019).

    Args:
        together: counts of ``co_occurrences``, of at most ``EASE_MOST_ITEMS`` items; collective.
    """
    gram = together.toarray().astype(np.float64)
    for penalty in _PENALTIES:
        weights = ease_weights(gram, penalty)
        for half_life in _HALF_LIVES:
            settings = f"penalty {penalty}, half-life {half_life}"
            yield ItemToItem(weights, half_life, _EVENTS, settings=settings)


def ease_weights(gram: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """``B`` that minimises ``||X - X B||² + penalty ||B||²`` with a zero diagonal; ``gram`` is ``X^T X [V, V]``.

    Rank 0 inverts, on one thread, and the others take its result, so that no figure depends on the number of
    ranks or on their shares of the cores; collective.
    """
    ranks, result = Collective(), torch.zeros(gram.shape, dtype=torch.float64)
    if ranks.rank == 0:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            penalised = torch.from_numpy(gram) + penalty * torch.eye(len(gram), dtype=torch.float64)
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(penalised))
        finally:
            torch.set_num_threads(threads)
        # Rounded to what the inverse is good for, so that items of the same users keep the same weights. LAPACK
        # leaves columns contiguous; the other ranks' memory is in rows.
        result = (-inverse / inverse.diagonal() * _ROUNDING).round().div(_ROUNDING).contiguous()
        result.fill_diagonal_(0)
    return ranks.sum(result).numpy()


def _cosines(together: csr_array) -> csr_array:
    """``[V, V]`` float64, ``users of both / sqrt(users of i * users of j)``, symmetric, no diagonal."""
    pairs, users = together.tocoo(), together.diagonal()
    other = pairs.row != pairs.col
    rows, columns = pairs.row[other], pairs.col[other]
    cosine = pairs.data[other] / np.sqrt(users[rows] * users[columns])
    return csr_array((cosine, (rows, columns)), shape=together.shape)


def _largest_of_rows(matrix: csr_array, count: int) -> csr_array:
    """The ``count`` largest values of each row, and those that equal the last of them."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    descending = np.lexsort((-matrix.data, rows))
    sizes = np.diff(matrix.indptr)
    threshold = np.full(matrix.shape[0], -np.inf)
    long = sizes >= count
    threshold[long] = matrix.data[descending[matrix.indptr[:-1][long] + count - 1]]
    kept = matrix.data >= threshold[rows]
    return csr_array((matrix.data[kept], (rows[kept], matrix.indices[kept])), shape=matrix.shape)
