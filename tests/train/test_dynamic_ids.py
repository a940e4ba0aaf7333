"""Training with dynamic ids: as with a static table where rows suffice, and what changes where they do not.

Two ranks, saves and resumes are seen by the item: the row that an item has is looked up in the map.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests.spawn import run_ranks
from tests.train.small_run import NUM_ITEMS, global_batch, join, small_config, small_step
from tests.train.stored import stored_values

LENGTHS = [9, 1, 13, 0, 4, 2, 7, 3]
STEPS, SAVED = 6, 3
ROOMY = {"kind": "dynamic", "capacity": NUM_ITEMS + 6}
FEW = {"kind": "dynamic", "capacity": 10, "admit_after": 2, "evict": "lfu"}
SAMPLED = {"objective__retrieval__negatives": "sampled", "objective__retrieval__num_negatives": 20}
STATIC = {
    "full": {},
    "zipfian": {**SAMPLED, "objective__retrieval__distribution": "log_popularity"},
    "mixed": {**SAMPLED, "objective__retrieval__negatives": "mixed", "tables__optimizer": "rowwise_adagrad"},
}
IN_BATCH = {"objective__retrieval__negatives": "in_batch"}


class Seen(NamedTuple):
    """Losses and norms of every step, the live items, and their vectors and moments side by side."""

    trace: Tensor
    live: Tensor
    values: Tensor


def advance(step: Any, first: int, last: int) -> Tensor:
    """Train on the global batches ``first:last``; each rank has some neighbouring users."""
    import torch.distributed as dist

    trace = []
    for number in range(first, last):
        users = global_batch(number, LENGTHS)
        own = torch.arange(len(users)).tensor_split(dist.get_world_size())[dist.get_rank()].tolist()
        outcome = step(join([users[user] for user in own]), number)
        trace.append(torch.cat([outcome.loss[None], outcome.losses, outcome.grad_norms]))
    return torch.stack(trace) if trace else torch.zeros(0)


def seen(step: Any, trace: Tensor) -> Seen:
    import torch.distributed as dist

    parts: dict[str, Tensor] = {}
    for name, columns, shard in step.table.state_shards():
        whole = parts.setdefault(name, torch.zeros(step.table.num_rows, 12))
        values = shard.values if shard.values.ndim == 2 else shard.values[:, None].expand(-1, columns)
        whole[shard.row_offset :][: len(values)] = values[:, :12]
    for name in sorted(parts):
        dist.all_reduce(parts[name])
    by_row = torch.cat([parts[name] for name in sorted(parts)], dim=1)
    if step.table.live is None:
        return Seen(trace, torch.arange(NUM_ITEMS), by_row)
    ids = step.table.live.map
    live = torch.from_numpy(ids.live_ids())
    return Seen(trace, live, by_row[torch.from_numpy(ids.rows)[live]])


def trained(changes: dict[str, Any]) -> Seen:
    step = small_step(small_config(**changes))
    return seen(step, advance(step, 0, STEPS))


def restarted_rows(changes: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
    """Items that one more batch gives rows, and their vectors and moments before they are trained."""
    import torch.distributed as dist

    step = small_step(small_config(**changes))
    advance(step, 0, STEPS)
    assert sum(shard.values.abs().sum() for _, _, shard in step.table.state_shards()) > 0
    found = []
    for number in range(STEPS, STEPS + 3):
        change = step.table.live.observe(join(global_batch(number, LENGTHS)).item_ids, number)
        assert change.evicted.size
        now = seen(step, torch.zeros(0))
        given = torch.isin(now.live, torch.from_numpy(change.ids))
        found.append((now.live[given], now.values[given]))
    assert dist.get_world_size() == 1
    return found


def alone(run: Path) -> dict[str, Any]:
    """All that one rank has to say."""
    said: dict[str, Any] = {
        name: (trained(changes), trained({**changes, "tables__ids": ROOMY})) for name, changes in STATIC.items()
    }
    said["in_batch"] = trained(IN_BATCH), trained({**IN_BATCH, "tables__ids": {**ROOMY, "admit_after": 1}})
    said["few"] = trained({"tables__ids": FEW})
    said["loaded"] = loaded(run)
    said["restarted"] = {
        optimizer: restarted_rows({"tables__ids": {**FEW, "evict": "lru"}, "tables__optimizer": optimizer})
        for optimizer in ("adam", "rowwise_adagrad")
    }
    return said


def saved_and_resumed(run: Path) -> tuple[Seen, Seen, Seen]:
    """A run through, where it stood at its save, and another that goes on from there."""
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
    from unigrf_dist.train.checkpoints.state import TrainState

    step = small_step(small_config(tables__ids=FEW))
    before = advance(step, 0, SAVED)
    state = TrainState(step=SAVED)
    checkpoints = Checkpoints(run, step.engine, step.table, keep=1)
    checkpoints.note_schedule(state)
    checkpoints.save(state)
    at_save = seen(step, before)
    through = seen(step, torch.cat([before, advance(step, SAVED, STEPS)]))
    resumed = small_step(small_config(tables__ids=FEW))
    Checkpoints(run, resumed.engine, resumed.table, keep=1).load("latest")
    return through, at_save, seen(resumed, advance(resumed, SAVED, STEPS))


def loaded(run: Path) -> Seen:
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints

    step = small_step(small_config(tables__ids=FEW))
    Checkpoints(run, step.engine, step.table, keep=1).load("latest")
    return seen(step, torch.zeros(0))


def refusal(run: Path, ids: dict[str, Any]) -> str:
    from unigrf_dist.errors import UserError
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints

    step = small_step(small_config(tables__ids=ids))
    with pytest.raises(UserError) as raised:
        Checkpoints(run, step.engine, step.table, keep=1).load("latest")
    return str(raised.value)


def four(run: Path) -> tuple[Seen, str, str]:
    return loaded(run), refusal(run, {}), refusal(run, {**FEW, "capacity": 11})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def two_ranks(run: Path) -> list[tuple[Seen, Seen, Seen]]:
    return run_ranks(2, saved_and_resumed, run)


@pytest.fixture(scope="module")
def one_rank(run: Path, two_ranks: object) -> dict[str, Any]:
    (said,) = run_ranks(1, alone, run)
    return said


@pytest.mark.parametrize("negatives", STATIC)
def test_with_rows_for_all_nothing_differs_from_a_static_table(one_rank: dict, negatives: str) -> None:
    static, dynamic = one_rank[negatives]
    for ours, theirs in zip(dynamic, static, strict=True):
        assert torch.equal(ours, theirs)


def test_items_admitted_when_first_seen_differ_in_nothing_among_in_batch_negatives(one_rank: dict) -> None:
    static, dynamic = one_rank["in_batch"]
    assert torch.equal(dynamic.trace, static.trace)
    assert len(dynamic.live) < NUM_ITEMS
    assert torch.equal(dynamic.values, static.values[dynamic.live])


@pytest.mark.parametrize("optimizer", ["adam", "rowwise_adagrad"])
def test_a_row_that_changes_hands_starts_as_that_of_its_new_item(one_rank: dict, optimizer: str) -> None:
    generator = torch.Generator().manual_seed(5 * 1_000_003)
    first = torch.randn(4096, 12, generator=generator) * 0.02
    for items, values in one_rank["restarted"][optimizer]:
        assert len(items)
        weight = values[:, -12:]  # `item/weight` comes last by name
        assert torch.equal(weight, first[items])
        assert not values[:, :-12].any()


def test_two_ranks_decide_and_train_as_one_does(one_rank: dict, two_ranks: list) -> None:
    assert len(one_rank["few"].live) == 10
    for through, _, _ in two_ranks:
        assert torch.equal(through.live, one_rank["few"].live)
        for ours, theirs in zip(through, one_rank["few"], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_resumed_run_is_bit_equal_to_one_that_never_stopped(two_ranks: list) -> None:
    for through, at_save, resumed in two_ranks:
        assert torch.equal(resumed.live, through.live)
        assert not torch.equal(at_save.live, through.live), "nothing came or went after the save"
        assert torch.equal(resumed.values, through.values)
        assert torch.equal(resumed.trace, through.trace[SAVED:])


def test_a_checkpoint_of_two_ranks_keeps_every_vector_on_one_and_on_four(
    run: Path, one_rank: dict, two_ranks: list
) -> None:
    (_, at_save, _), _ = two_ranks
    said = run_ranks(4, four, run)
    for found in (one_rank["loaded"], *(each[0] for each in said)):
        assert torch.equal(found.live, at_save.live)
        assert torch.equal(found.values, at_save.values)
    stored = stored_values(run / "checkpoints" / f"step-{SAVED:08d}")
    rows = stored["ids/row"][:, 0].long()
    assert (rows < 10).nonzero()[:, 0].tolist() == at_save.live.tolist()
    assert torch.equal(stored["table/item/weight"][rows[at_save.live], :12].float(), at_save.values[:, -12:])
    for _, static, larger in said:
        assert "its items have 10 rows in turn, the configuration gives a row each (tables.ids)" in static
        assert "its items have 10 rows in turn, the configuration gives 11 rows in turn (tables.ids)" in larger
