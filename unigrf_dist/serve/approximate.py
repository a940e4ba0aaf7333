"""Approximate search of a large catalogue: an inverted file (faiss) over the item vectors.

Shapes: ``n`` queries, ``D`` width, ``V`` items.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unigrf_dist.errors import UserError
from unigrf_dist.evaluate.catalogue import Found
from unigrf_dist.evaluate.sharded_scores import SMALLEST_NORM
from unigrf_dist.evaluate.top_k import NOTHING
from unigrf_dist.serve.loaded import LoadedRun

Search = Literal["auto", "exact", "ann"]
EXACT_ITEMS = 1_000_000
"""A catalogue of up to so many items is searched exactly unless something else is asked for."""
_ITEMS_OF_A_CELL = 39  # fewer to train a cell on, and faiss warns
_PROBED_SHARE = 16


class ApproximateCatalogue:
    """Looks for the best items where the query is near, and scores what it found exactly. Thread-safe.

    Args:
        index: of the items that may be listed at all, by their dense ids.
        items: ``[V, D]`` fp32 item vectors.
        normalize: whether the model compares normalised vectors.
    """

    def __init__(self, index: Any, items: Tensor, *, normalize: bool) -> None:
        self._index, self._items, self._normalize = index, items, normalize

    @property
    def num_items(self) -> int:
        """Items that can be found."""
        return int(self._index.ntotal)

    @torch.no_grad()
    def search(
        self,
        queries: Tensor,
        k: int,
        exclude_item_ids: Tensor,
        exclude_offsets: Tensor,
        *,
        temperature: float,
        allowed: Tensor | None = None,
    ) -> Found:
        """As ``ShardedCatalogue.search``, but that an item may be missed.

        Items are left out while it searches, not afterwards, so that a list is full where enough items are near.
        The softmax is over the items that were found: of the others it knows nothing.
        """
        bounds = exclude_offsets.tolist()
        # A query's length changes no order, but the softmax.
        lengths = queries.norm(dim=1, keepdim=True) if self._normalize else torch.ones(len(queries), 1)
        queries = queries / lengths.clamp_min(SMALLEST_NORM)
        ids = torch.full((len(queries), k), NOTHING)
        for row, query in enumerate(queries):
            may_appear = torch.ones(len(self._items), dtype=torch.bool) if allowed is None else allowed.clone()
            may_appear[exclude_item_ids[bounds[row] : bounds[row + 1]]] = False
            ids[row] = self._nearest(query, k, may_appear)
        ids = ids.sort(dim=1, descending=False).values  # equal scores by lowest id
        items = _compared(self._items[ids.masked_fill(ids == NOTHING, 0)], self._normalize).double()
        values = (items @ queries.double()[:, :, None])[:, :, 0].masked_fill(ids == NOTHING, -torch.inf)
        values, order = values.sort(dim=1, descending=True, stable=True)
        return Found(ids.gather(1, order), values, (values / temperature).log_softmax(1))

    def _nearest(self, query: Tensor, k: int, may_appear: Tensor) -> Tensor:
        """``[k]`` ids, in no order; -1 where nothing was found."""
        faiss = load_faiss("search")
        bits = np.packbits(may_appear.numpy(), bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
        wanted = faiss.SearchParametersIVF(sel=selector, nprobe=_probes(self._index.nlist))
        _, ids = self._index.search(query[None].float().numpy(), k, params=wanted)
        return torch.from_numpy(ids[0])

    def write(self, file: Path) -> None:
        """Write the index into ``file``.

        Raises:
            OSError: it can't be written.
        """
        faiss = load_faiss("--ann")
        try:
            faiss.write_index(self._index, str(file))
        except RuntimeError as error:
            raise OSError(f"{file.name} can't be written") from error


def build_index(items: Tensor, *, normalize: bool, live: Tensor | None) -> ApproximateCatalogue:
    """An index of item vectors, the same bytes for the same vectors.

    About four times the square root of ``V`` cells, a sixteenth of which is looked at, eight at least.

    Args:
        items: ``[V, D]`` fp32.
        normalize: whether the model compares normalised vectors.
        live: ``[V]`` bool, items that may be listed at all; None for all.
    """
    faiss = load_faiss("--ann")
    rows = torch.arange(len(items)) if live is None else live.nonzero()[:, 0]
    vectors = _compared(items[rows], normalize).float().contiguous().numpy()
    cells = max(1, min(round(4 * len(rows) ** 0.5), len(rows) // _ITEMS_OF_A_CELL))
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # threads would add in another order
    try:
        index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(items.shape[1]), items.shape[1], cells, faiss.METRIC_INNER_PRODUCT
        )
        index.train(vectors)
        index.add_with_ids(vectors, rows.numpy())
    finally:
        faiss.omp_set_num_threads(threads)
    return ApproximateCatalogue(index, items, normalize=normalize)


def approximate_catalogue(run: LoadedRun, search: Search) -> ApproximateCatalogue | None:
    """What searches the catalogue of ``run`` instead of the exact search; None for exact search.

    Args:
        run: the run or export.
        search: ``exact``, ``ann``, or ``auto``: ``ann`` where there is an index and more than a million items.

    Raises:
        UserError: there is no index, or faiss is not installed.
    """
    if search not in ("auto", "exact", "ann"):
        raise UserError(f"search = {search!r}: allowed are auto, exact and ann")
    if search == "exact" or (search == "auto" and (run.index is None or len(run.items) <= EXACT_ITEMS)):
        return None
    if run.index is None:
        raise UserError("search = 'ann': no catalogue.faiss here; make an export with `unigrf export --ann`")
    faiss = load_faiss("search = 'ann'")
    try:
        index = faiss.read_index(str(run.index))
    except RuntimeError as error:
        raise UserError(f"{run.index}: can't be read; make the export anew") from error
    normalize = run.config.objective.retrieval.normalize
    return ApproximateCatalogue(index, run.tables.items, normalize=normalize)


def load_faiss(what: str) -> Any:
    """The package; its stubs do not know the signatures that it has in Python.

    Args:
        what: option that wants it.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("faiss")
    except ModuleNotFoundError as error:
        raise UserError(f"{what}: no package faiss; pip install 'unigrf-dist[ann]'") from error


def _probes(cells: int) -> int:
    return min(cells, max(8, cells // _PROBED_SHARE))


def _compared(vectors: Tensor, normalize: bool) -> Tensor:
    """``[..., D]`` as the model compares them."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(SMALLEST_NORM) if normalize else vectors
