"""Retrieval by neighbours and by a linear autoencoder, each with the settings that are searched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from unigrf_dist.data import JaggedBatch
from unigrf_dist.evaluate.opponents.item_pairs import WEIGHT_ONE, Counts, transitions
from unigrf_dist.evaluate.opponents.item_to_item import ItemToItem
from unigrf_dist.evaluate.opponents.search import Axis, Family, Settings
from unigrf_dist.ranks.collective import Collective

EASE_MOST_ITEMS = 8_000
"""EASE inverts a dense matrix of items × items: 512 MB of float64 at this size."""

# Events that the matrices are asked with.
_TRANSITION_EVENTS, _EVENTS = 30, 60
_ROUNDING = 2.0**32
# Rows whose cosines are ordered at a time, and matrices that a search goes back to.
_BLOCK_ROWS, _KEPT_MATRICES = 512, 2

Events = Callable[[], Iterable[JaggedBatch]]
"""Training events of this rank's users, from the start at every call."""


def transition_knn(events: Events, num_items: int) -> Family:
    """Items that followed within a few gaps: ``score[j] = sum of w(i) T[i, j] / sqrt(out[i]) / in[j] ** damping``.

    ``out`` and ``in`` are the row and column sums of ``T``, the weighted counts of ``transitions``.

    Args:
        events: training events, read once for every range of gaps that is tried.
        num_items: size of the catalogue.

    Raises:
        TooManyPairs: while building; the transitions would not fit.
    """

    @lru_cache(_KEPT_MATRICES)
    def matrix(gaps: int) -> csr_array | NDArray[np.float64]:
        return transitions(events(), num_items, first_gap=1, last_gap=gaps).astype(np.float64) / WEIGHT_ONE

    def build(settings: Settings) -> ItemToItem:
        counts = matrix(int(settings["gaps"]))
        out, into = (np.maximum(np.asarray(counts.sum(axis)), 1.0) for axis in (1, 0))
        return ItemToItem(
            counts,
            settings["half-life"],
            _TRANSITION_EVENTS,
            item_weight=out**-0.5,
            score_weight=into ** -settings["damping"],
        )

    axes = {
        "half-life": Axis((0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 20), 3),
        "damping": Axis((0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), 0.3),
        "gaps": Axis((1, 2, 3, 5, 7, 10, 14, 20, 30, 40), 10),
    }
    return Family(axes, build)


def item_knn(together: Counts) -> Family:
    """Cosine of the users of two items, of each item the nearest few (Sarwar et al., WWW 2001).

    Args:
        together: counts of ``co_occurrences``.
    """
    cosine = cosines(together)

    @lru_cache(_KEPT_MATRICES)
    def matrix(nearest: int) -> csr_array | NDArray[np.float64]:
        # Cosines are symmetric: the nearest of item j are cut in row j and used in column j.
        cut = largest_of_rows(cosine, nearest).T
        return np.ascontiguousarray(cut) if isinstance(cut, np.ndarray) else cut.tocsr()

    def build(settings: Settings) -> ItemToItem:
        return ItemToItem(matrix(int(settings["nearest"])), settings["half-life"], _EVENTS)

    axes = {
        "half-life": Axis((0.5, 1, 1.5, 2, 3, 5, 8, 15, 30), 2),
        "nearest": Axis((10, 25, 50, 100, 200, 400, 800, 1600), 200),
    }
    return Family(axes, build)


def ease(together: Counts) -> Family:
    """The linear autoencoder without self-similarity in closed form (Steck, WWW 2019).

    Args:
        together: counts of ``co_occurrences``, of at most ``EASE_MOST_ITEMS`` items; building is collective.
    """
    gram = np.asarray(together.toarray() if isinstance(together, csr_array) else together, dtype=np.float64)

    @lru_cache(_KEPT_MATRICES)
    def matrix(penalty: float) -> NDArray[np.float64]:
        return ease_weights(gram, penalty)

    def build(settings: Settings) -> ItemToItem:
        return ItemToItem(matrix(settings["penalty"]), settings["half-life"], _EVENTS)

    axes = {
        "half-life": Axis((0.5, 1, 2, 3, 5, 8, 15, 30, 60), 5),
        "penalty": Axis((25, 50, 100, 200, 400, 800, 1600, 3200, 6400), 400),
    }
    return Family(axes, build)


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


def cosines(together: Counts) -> csr_array | NDArray[np.float64]:
    """``[V, V]`` float64, ``users of both / sqrt(users of i * users of j)``, symmetric, no diagonal."""
    users = together.diagonal()
    if isinstance(together, np.ndarray):
        length = np.sqrt(np.maximum(users, 1))
        cosine = together / length[:, None] / length[None, :]
        np.fill_diagonal(cosine, 0)
        return cosine
    pairs = together.tocoo()
    other = pairs.row != pairs.col
    rows, columns = pairs.row[other], pairs.col[other]
    values = pairs.data[other] / np.sqrt(users[rows] * users[columns])
    return csr_array((values, (rows, columns)), shape=together.shape)


def largest_of_rows(matrix: csr_array | NDArray[np.float64], count: int) -> csr_array | NDArray[np.float64]:
    """The ``count`` largest values of each row, and those that equal the last of them; the others are 0."""
    if isinstance(matrix, np.ndarray):
        return _largest_of_dense_rows(matrix, count)
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    descending = np.lexsort((-matrix.data, rows))
    sizes = np.diff(matrix.indptr)
    threshold = np.full(matrix.shape[0], -np.inf)
    long = sizes >= count
    threshold[long] = matrix.data[descending[matrix.indptr[:-1][long] + count - 1]]
    kept = matrix.data >= threshold[rows]
    return csr_array((matrix.data[kept], (rows[kept], matrix.indices[kept])), shape=matrix.shape)


def _largest_of_dense_rows(matrix: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    result = matrix.copy()
    if count < matrix.shape[1]:
        for first in range(0, len(matrix), _BLOCK_ROWS):
            block = result[first : first + _BLOCK_ROWS]
            block[block < np.partition(block, -count, axis=1)[:, -count, None]] = 0
    return result
