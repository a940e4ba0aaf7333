"""A run small enough for tests: configuration, batches and parts, without a data set on disk."""

from __future__ import annotations

from typing import Any

import torch

from tests.train.small_features import USER_CODES, small_features
from unigrf_dist.config.schema import Config
from unigrf_dist.data.batch import JaggedBatch

NUM_ITEMS = 83  # divides by no world size used here
NUM_BEHAVIOURS = 5
NUM_USERS = 8
LABELS = [[float(code >= 3)] for code in range(NUM_BEHAVIOURS)]


def small_config(stage: int = 0, **changes: Any) -> Config:
    """A tiny HSTU run; ``changes`` are dotted keys with ``__`` for the dot."""
    values: dict[str, Any] = {
        "data": {"path": "unused", "max_events": 12},
        "model": {"width": 12, "blocks": 2, "heads": 2, "head_width": 8, "dropout": 0.0, "time_buckets": 16},
        "tables": {"learning_rate": 1e-2},
        "objective": {"ranking": [{"rule": "rating >= 4"}]},
        "train": {"epochs": 1, "global_batch_users": 8, "seed": 5},
        "deepspeed": {
            "zero_optimization": {"stage": stage},
            "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "betas": [0.9, 0.98]}},
            "gradient_clipping": 1.0,
        },
    }
    if stage == 3:
        # Else parameters this small are never partitioned.
        values["deepspeed"]["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    for key, value in changes.items():
        *sections, leaf = key.split("__")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
        target[leaf] = value
    return Config.model_validate(values)


def global_batch(step: int, lengths: list[int]) -> list[JaggedBatch]:
    """Users of ``lengths`` events each, a batch of one user per list entry; a function of ``step``."""
    generator = torch.Generator().manual_seed(1000 + step)
    users = []
    for user, length in enumerate(lengths):
        draw = lambda high, n=length: torch.randint(high, (n,), generator=generator)  # noqa: E731
        users.append(
            JaggedBatch(
                item_ids=draw(NUM_ITEMS),
                behaviours=draw(NUM_BEHAVIOURS),
                timestamps=draw(10**6).sort().values,
                offsets=torch.tensor([0, length]),
                user_ids=torch.tensor([user]),
                user_features=USER_CODES[user % len(USER_CODES)],
            )
        )
    return users


def join(users: list[JaggedBatch]) -> JaggedBatch:
    """One batch of several users."""
    if not users:
        return JaggedBatch.empty()
    lengths = torch.tensor([user.num_events for user in users])
    return JaggedBatch(
        torch.cat([u.item_ids for u in users]),
        torch.cat([u.behaviours for u in users]),
        torch.cat([u.timestamps for u in users]),
        torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        torch.cat([u.user_ids for u in users]),
        torch.cat([u.user_features for u in users if u.user_features is not None]),
    )


def small_step(
    config: Config,
    users: torch.Tensor | None = None,
    *,
    labels: list[list[float]] = LABELS,
    first_row: int = 0,
) -> Any:
    """The ``TrainStep`` of a run of ``config`` on this rank, with candidates for ``users``, or for all of them.

    ``labels`` are those of each behaviour under each ranking task.
    """
    from unigrf_dist.model.tables import ItemTable
    from unigrf_dist.model.unigrf import UniGRF
    from unigrf_dist.objective.enhancer.store import CandidateStore
    from unigrf_dist.objective.exact_norms import ExactNorms
    from unigrf_dist.objective.negatives import NegativeSource
    from unigrf_dist.objective.weighter import build_weighter
    from unigrf_dist.phases import Phases
    from unigrf_dist.ranks.runtime import start
    from unigrf_dist.train.engine import build_engine
    from unigrf_dist.train.step import TrainStep

    device, seed = start(60).device, config.train.seed
    table = ItemTable(
        config.tables,
        num_items=NUM_ITEMS,
        width=config.model.width,
        device=device,
        seed=seed,
        features=small_features(config, NUM_ITEMS),
    )
    torch.manual_seed(seed)
    model = UniGRF(config, labels, num_items=NUM_ITEMS, phases=Phases())
    engine = build_engine(config, model, num_users=NUM_USERS)
    enhancer = config.objective.enhancer
    return TrainStep(
        engine,
        table,
        NegativeSource(config.objective.retrieval, popularity=torch.arange(NUM_ITEMS), seed=1, device=device),
        build_weighter(config.objective.weighter, device),
        ExactNorms(engine.module.last_shared_parameters(), config.objective.weighter.exact_every_steps),
        None
        if enhancer is None
        else CandidateStore(enhancer, torch.arange(NUM_USERS) if users is None else users, first_row=first_row),
        table_rate_ratio=1.0,
        matmul_precision=config.train.matmul_precision,
        seed=seed,
        phases=Phases(),
        skip_non_finite=config.train.on_non_finite == "skip",
    )


def whole_weights(step: Any) -> dict[str, torch.Tensor]:
    """All weights of a run, gathered: dense parameters in fp32 by name, the item table and those of features."""
    import torch.distributed as dist

    from unigrf_dist.train.dense_state import read_dense_state

    weights = {name: values["weight"] for name, values in read_dense_state(step.engine).items()}
    for name, num_rows in {"item": NUM_ITEMS, **step.table.features.cardinalities}.items():
        table = torch.zeros(num_rows, step.table.width)
        for shard in step.table.shards(name):
            rows, columns = shard.weight.shape
            part = table[shard.row_offset :, shard.column_offset :][:rows, :columns]
            part.copy_(shard.weight[:, : part.shape[1]])
        dist.all_reduce(table)
        weights[f"{name} table"] = table
    return weights
