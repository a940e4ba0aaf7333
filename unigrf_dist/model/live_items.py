"""Dynamic ids on the ranks: what they tell each other, and the rows of the table that change their item.

The map (``id_map``) lies whole on the host of every rank, 24 bytes per item, and every rank decides for all rows
by the same counts. A map cut up by owner would need an answer from the owners before every lookup; this needs one
gathering of the batch's item ids, which waits for no device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from unigrf_dist.config.schema import IdsConfig
from unigrf_dist.model.id_map import Admitted, IdMap
from unigrf_dist.model.initial_vectors import InitialVectors
from unigrf_dist.model.table_shard import StateShard
from unigrf_dist.ranks.collective import Collective


class LiveItems:
    """The rows of live items.

    Args:
        config: capacity, admission and eviction.
        num_items: ``V``, items of the data set; rows are given to these.
        initial: initial vectors of items.
        device: device of the lookups.
        shards: gives this rank's parts of the item table's weights and of its optimizer's state: name and shard;
            asked once, as what it gives are views.

    Attributes:
        map: who decides.
        row_of_item: ``[V]`` int64 on the device, row of each item; the shared one of unknown items.
    """

    def __init__(
        self,
        config: IdsConfig,
        *,
        num_items: int,
        initial: InitialVectors,
        device: torch.device,
        shards: Callable[[], Sequence[tuple[str, StateShard]]],
    ) -> None:
        self.map, self._initial, self._device, self._shards = IdMap(config, num_items), initial, device, shards
        # Of its own under NCCL, which moves nothing between hosts and would wait for the device's queue.
        own = dist.get_world_size() > 1 and dist.get_backend() == "nccl"
        self._ranks = Collective(dist.new_group(backend="gloo") if own else None)
        self._parts: Sequence[tuple[str, StateShard]] | None = None
        self._live_ids: Tensor | None = None
        self.reload()

    def observe(self, item_ids: Tensor, step: int) -> Admitted:
        """Give rows to newcomers of the global batch of ``step``, and start them afresh; collective.

        Args:
            item_ids: ``[E]`` int64 on the host, items of the events of this rank's share.
            step: step of the run, from 0.
        """
        change = self.map.observe(*self._global_counts(item_ids), step)
        if change.evicted.size or change.ids.size:
            self._live_ids = None
            for ids, rows in ((change.evicted, self.map.unknown_row), (change.ids, change.rows)):
                values = torch.as_tensor(rows).to(self._device)
                self.row_of_item[torch.from_numpy(ids).to(self._device)] = values
        if change.ids.size:
            self._restart(change)
        return change

    def rows(self, ids: Tensor) -> Tensor:
        """Row of each of ``ids`` in the table; the shared one of unknown items."""
        return self.row_of_item[ids]

    def known(self, ids: Tensor) -> Tensor:
        """Whether each of ``ids`` is live."""
        return self.row_of_item[ids] != self.map.unknown_row

    @property
    def ids(self) -> Tensor:
        """``[L]`` int64 on the device, the live items, ascending; the same tensor until one of them changes."""
        if self._live_ids is None:
            self._live_ids = torch.from_numpy(self.map.live_ids()).to(self._device)
        return self._live_ids

    def clear_spare_rows(self) -> None:
        """Zero the rows of no item, the shared one among them."""
        spare = torch.ones(self.map.unknown_row + 1, dtype=torch.bool)
        spare[torch.from_numpy(self.map.rows[self.map.live_ids()])] = False
        for _, shard in self._own():
            shard.values[spare[shard.row_offset :][: len(shard.values)].to(self._device)] = 0

    def reload(self) -> None:
        """Adopt what was read from a checkpoint into the map's arrays."""
        self.map.reload()
        self.row_of_item = torch.from_numpy(self.map.rows.copy()).to(self._device)
        self._live_ids = None

    def _global_counts(self, item_ids: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Items of the global batch, ascending, and the events of each."""
        own = torch.stack(item_ids.unique(return_counts=True), dim=1)
        parts = torch.cat(self._ranks.gather_rows(own)).numpy()
        ids, where = np.unique(parts[:, 0], return_inverse=True)
        counts = np.zeros(ids.size, np.int64)
        np.add.at(counts, where, parts[:, 1])
        return ids, counts

    def _own(self) -> Sequence[tuple[str, StateShard]]:
        if self._parts is None:
            self._parts = self._shards()
        return self._parts

    def _restart(self, change: Admitted) -> None:
        """Admitted rows as they would be in a table that had never held another item."""
        for name, shard in self._own():
            here = (change.rows >= shard.row_offset) & (change.rows < shard.row_offset + len(shard.values))
            if not here.any():
                continue
            rows = torch.from_numpy(change.rows[here] - shard.row_offset).to(self._device)
            shard.values[rows] = 0
            if name == "weight":
                vectors = self._initial.of(change.ids[here])[:, shard.column_offset :][:, : shard.values.shape[1]]
                shard.values[rows, : vectors.shape[1]] = vectors.to(self._device)
