"""The item table and those of side features: sharded by TorchRec, updated by an optimizer fused into the backward.

DeepSpeed never sees these parameters, and the tables never see the engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import Tensor
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints
from torchrec.distributed.types import ShardingEnv, ShardingPlan

from unigrf_dist.config.schema import TableConfig
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.cpu_adam import cpu_adam_tables
from unigrf_dist.model.initial_vectors import BLOCK_ROWS, InitialVectors, drawn_block
from unigrf_dist.model.live_items import LiveItems
from unigrf_dist.model.side_features import SideFeatures
from unigrf_dist.model.table_shard import StateShard, TableShard

_ITEM = "item"
_OPTIMIZERS = {
    "adam": EmbOptimType.ADAM,
    "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    "adagrad": EmbOptimType.EXACT_ADAGRAD,
    "sgd": EmbOptimType.EXACT_SGD,
}
# TorchRec wants the same number of samples on every rank. Ids need no samples, so they are dealt out evenly
# to a fixed number of them; on CUDA the bucketing kernel works on the samples in parallel.
_NUM_SAMPLES = 256
_SHARDINGS = ["row_wise", "table_wise", "column_wise", "table_row_wise"]
# FBGEMM stores rows of a multiple of four values; the columns added are zero and stay so.
_WIDTH_MULTIPLE = 4


class ItemTable:
    """Item vectors, sharded over the ranks, and beside them a table for each side feature.

    A row for each item or, with dynamic ids, ``capacity`` rows of live items and one behind them, which all other
    items share (``live_items``).

    Args:
        config: sharding, fused optimizer and its hyperparameters; which items have rows.
        num_items: number of items; their ids are below it.
        width: number of columns.
        device: device of the shards.
        seed: seed of the initial vectors; the same table results on any number of ranks.
        features: side features; none if left out.
    """

    def __init__(
        self,
        config: TableConfig,
        *,
        num_items: int,
        width: int,
        device: torch.device,
        seed: int,
        features: SideFeatures | None = None,
    ) -> None:
        self.num_items, self.width, self.device = num_items, width, device
        self.features = features or SideFeatures({}, {}, device)
        group = dist.group.WORLD
        sharder = EmbeddingCollectionSharder(fused_params=_fused_params(config))
        dynamic = config.ids.kind == "dynamic"
        self.num_rows = num_items if not dynamic else (config.ids.capacity or 0) + 1
        self._num_rows = {_ITEM: self.num_rows, **self.features.cardinalities}
        rows = {name: _rows_for_all(number, dist.get_world_size()) for name, number in self._num_rows.items()}
        collection = _collection(rows, -(-width // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE)
        plan = _plan(config, collection, sharder, device)
        with cpu_adam_tables():
            self.module = DistributedModelParallel(
                collection,
                device=device,
                plan=plan,
                sharders=[sharder],
                env=ShardingEnv.from_process_group(group),
            )
        for shard in self.shards():
            _draw_shard(shard, width, config.init_std, seed)
        for name in self.features.cardinalities:
            for shard in self.shards(name):
                shard.weight.zero_()
        self.live: LiveItems | None = None
        if dynamic:
            self.live = LiveItems(
                config.ids,
                num_items=num_items,
                initial=InitialVectors(width=width, std=config.init_std, seed=seed),
                device=device,
                shards=self._item_state,
            )
            self.live.clear_spare_rows()

    def lookup(
        self, ids: Tensor, batch: JaggedBatch, candidates: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Vectors of items, and in the same exchange what side features add to them in tokens; collective.

        Backward updates the tables.

        Args:
            ids: ``[N]`` int64 item ids.
            batch: ``E`` events of ``B`` users.
            candidates: ``[B, C]`` int64, further items of the users; below 0 is no item.

        Returns:
            ``[N, width]`` vectors of ``ids``, and the sums of the features' vectors, ``[E, width]`` of the events
            and ``[B, C, width]`` of the candidates; None without features or candidates.
        """
        if self.live is not None:
            ids = self.live.rows(ids)
        if not self.features:
            return self._rows({_ITEM: ids})[_ITEM], None, None
        features = self.features.lookup(batch, candidates)
        rows = self._rows({_ITEM: ids, **features.ids})
        of_events, of_candidates = features.combine(rows).tensor_split([batch.num_events])
        if candidates is None:
            return rows[_ITEM], of_events, None
        return rows[_ITEM], of_events, of_candidates.unflatten(0, candidates.shape)

    def _rows(self, ids: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rows of each table, in the order in which the collection holds the tables."""
        lengths = [_sample_lengths(each.numel(), each.device) for each in ids.values()]
        keyed = KeyedJaggedTensor(keys=list(ids), values=_joined(list(ids.values())), lengths=_joined(lengths))
        vectors = self.module(keyed).wait()
        return {name: vectors[name].values()[:, : self.width] for name in ids}

    def begin_step(self, step: int, learning_rate: float) -> None:
        """Tell the fused optimizer which step (from 0) comes next, and its learning rate.

        The step is set, not counted: it lies in no state dict, and a rank whose batch is empty must not fall
        behind in Adam's bias correction.
        """
        optimizer = self.module.fused_optimizer
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        optimizer.set_optimizer_step(step)

    def shards(self, name: str = _ITEM) -> list[TableShard]:
        """What this rank holds of a table, the items' if none is named; views, not copies."""
        table = self.module.state_dict()[f"embeddings.{name}.weight"]
        return [
            TableShard(first_row, first_column, self._own_rows(name, first_row, shard.tensor))
            for shard in table.local_shards()
            for first_row, first_column in [shard.metadata.shard_offsets]
        ]

    def _own_rows(self, name: str, first_row: int, values: Tensor) -> Tensor:
        """The rows of a shard without those that only fill it up; a view."""
        return values.detach()[: max(0, self._num_rows[name] - first_row)]

    def state_shards(self) -> list[tuple[str, int, StateShard]]:
        """What this rank holds of all tables' weights and of their fused optimizer's state; views, not copies.

        Returns:
            Name, number of columns that the shard stands for, and the shard. The state of row-wise Adagrad has one
            value per row and shard, so that its ``values`` are ``[rows]``.
        """
        found: list[tuple[str, int, StateShard]] = []
        optimizer = self.module.fused_optimizer.state_dict()["state"]
        for key, weight in self.module.state_dict().items():
            table = key.removeprefix("embeddings.").removesuffix(".weight")
            shards = [
                (
                    self._own_rows(table, shard.metadata.shard_offsets[0], shard.tensor),
                    *shard.metadata.shard_offsets,
                )
                for shard in weight.local_shards()
            ]
            found += [(f"{table}/weight", w.shape[1], StateShard(row, column, w)) for w, row, column in shards]
            for name, state in optimizer.get(key, {}).items():
                # TorchRec gives state of one value per row made-up offsets; its shards come in the order of the
                # weights'.
                for (w, row, column), shard in zip(shards, state.local_shards(), strict=True):
                    kind = name.removeprefix(f"{table}.")
                    values = self._own_rows(table, row, shard.tensor)
                    found.append((f"{table}/{kind}", w.shape[1], StateShard(row, column, values)))
        return found

    def _item_state(self) -> list[tuple[str, StateShard]]:
        """What this rank holds of the item table, by ``weight`` or the name of the optimizer's state."""
        prefix = f"{_ITEM}/"
        return [
            (name.removeprefix(prefix), shard)
            for name, _, shard in self.state_shards()
            if name.startswith(prefix) and len(shard.values)
        ]


def _rows_for_all(num_rows: int, world_size: int) -> int:
    """Smallest number of rows, not below ``num_rows``, of which a row-wise sharding gives every rank some.

    A rank without rows has no gradient to wait for, runs ahead into DeepSpeed's reduction, and both wait for ever.
    """
    while (world_size - 1) * -(-num_rows // world_size) >= num_rows:
        num_rows += 1
    return num_rows


def _collection(rows: Mapping[str, int], width: int) -> EmbeddingCollection:
    tables = [
        EmbeddingConfig(name=name, embedding_dim=width, num_embeddings=number, feature_names=[name])
        for name, number in rows.items()
    ]
    return EmbeddingCollection(tables=tables, device=torch.device("meta"))


def _sample_lengths(num_ids: int, device: torch.device) -> Tensor:
    lengths = torch.full((_NUM_SAMPLES,), num_ids // _NUM_SAMPLES, dtype=torch.int64, device=device)
    lengths[: num_ids % _NUM_SAMPLES] += 1
    return lengths


def _joined(parts: list[Tensor]) -> Tensor:
    # TorchRec takes a strided tensor and reads other ids than it holds.
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)


def _fused_params(config: TableConfig) -> dict[str, Any]:
    params: dict[str, Any] = {
        "optimizer": _OPTIMIZERS[config.optimizer],
        "learning_rate": config.learning_rate,
        "eps": config.eps,
    }
    if config.optimizer == "adam":
        params["beta1"], params["beta2"] = config.betas
    return params


def _plan(
    config: TableConfig,
    collection: EmbeddingCollection,
    sharder: EmbeddingCollectionSharder,
    device: torch.device,
) -> ShardingPlan:
    world_size, width = dist.get_world_size(), collection.embedding_configs()[0].embedding_dim
    # Only fused kernels: the dense ones pool unpooled lookups on CPU in these versions, and escape the
    # fused optimizer everywhere.
    constraints = ParameterConstraints(
        sharding_types=_SHARDINGS if config.sharding == "planner" else [config.sharding],
        compute_kernels=["fused"],
        # Columns are cut only if asked for; then into as many parts as there are ranks, where they divide.
        min_partition=_cut(width, world_size) if config.sharding == "column_wise" else None,
    )
    topology = Topology(
        world_size=world_size,
        local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE", world_size)),
        compute_device=device.type,
        hbm_cap=torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None,
    )
    tables = [table.name for table in collection.embedding_configs()]
    planner = EmbeddingShardingPlanner(topology=topology, constraints=dict.fromkeys(tables, constraints))
    return planner.collective_plan(collection, [sharder], dist.group.WORLD)


def _cut(width: int, parts: int) -> int:
    """Columns of one of ``parts`` equal cuts, or all columns where they do not divide."""
    cut = width // parts
    return cut if cut * parts == width and cut % _WIDTH_MULTIPLE == 0 else width


def _draw_shard(shard: TableShard, width: int, std: float, seed: int) -> None:
    rows, columns = shard.weight.shape
    first, last = shard.row_offset, shard.row_offset + rows
    for block in range(first // BLOCK_ROWS, -(-last // BLOCK_ROWS)):
        start = block * BLOCK_ROWS
        drawn = drawn_block(block, width=width, std=std, seed=seed)
        low, high = max(first, start), min(last, start + BLOCK_ROWS)
        part = drawn[low - start : high - start, shard.column_offset : shard.column_offset + columns]
        target = shard.weight[low - first : high - first]
        target.zero_()[:, : part.shape[1]].copy_(part)
