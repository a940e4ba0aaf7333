"""Nothing of the held-out events reaches training in chunks, the enhancer's candidates included."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.data.small_sets import Event, write_users
from tests.spawn import run_ranks
from tests.train.small_run import NUM_ITEMS, NUM_USERS, small_config, small_step, whole_weights

ENHANCER = {"candidates": 6, "hard_negatives": 3, "soft_positives": 2, "threshold": 0.5, "warmup_epochs": 1}


def users(held_out_shift: int) -> list[list[Event]]:
    """Random users of 3 to 14 events, whose last two items are shifted."""
    generator = torch.Generator().manual_seed(9)
    made = []
    for user in range(NUM_USERS):
        length = 5 + user
        items = torch.randint(NUM_ITEMS, (length,), generator=generator)
        items[-2:] = (items[-2:] + held_out_shift) % NUM_ITEMS
        behaviours = torch.randint(5, (length,), generator=generator)
        made.append(
            [(i, b, 100 * t) for t, (i, b) in enumerate(zip(items.tolist(), behaviours.tolist(), strict=True))]
        )
    return made


def train(data: Path, leaky: bool) -> dict[str, torch.Tensor]:
    from unigrf_dist.data import TrainStream, open_dataset
    from unigrf_dist.data.split import LastEvents

    if leaky:
        LastEvents.num_training_events = lambda self, sequences, to: sequences.lengths  # type: ignore[method-assign]
    step = small_step(small_config(2, objective__enhancer=ENHANCER))
    batches = TrainStream(
        open_dataset(data),
        global_batch_users=6,
        max_events=5,
        rank=0,
        world_size=1,
        seed=1,
        prior_items=True,
        chunk_context=2,
    )
    number = 0
    for epoch in range(4):
        for batch in batches.epoch(epoch):
            step(batch, number, epoch=epoch)
            number += 1
    assert step.candidates is not None
    return {**whole_weights(step), "candidates": step.candidates.values().clone()}


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sets")
    for shift in (0, 1):
        write_users(folder / str(shift), users(shift), num_items=NUM_ITEMS)
    return [folder / "0", folder / "1"]


def runs(two_sets: list[Path], *, leaky: bool) -> list[dict[str, torch.Tensor]]:
    return [run_ranks(1, train, data, leaky)[0] for data in two_sets]


def test_other_held_out_events_train_the_very_same_model_and_candidates(two_sets: list[Path]) -> None:
    ours, theirs = runs(two_sets, leaky=False)
    assert (ours["candidates"] >= 0).any()
    for name, value in ours.items():
        assert torch.equal(theirs[name], value), name


def test_a_planted_leak_is_caught_by_that_comparison(two_sets: list[Path]) -> None:
    ours, theirs = runs(two_sets, leaky=True)
    assert not torch.equal(ours["candidates"], theirs["candidates"])
    assert any(not torch.equal(theirs[name], value) for name, value in ours.items() if name != "candidates")
