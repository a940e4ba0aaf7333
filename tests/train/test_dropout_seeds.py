"""Dropout masks of a run: others in every step, on every rank and in every layer, the same ones after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.spawn import run_ranks
from tests.train.small_run import global_batch, join, small_config, small_step

LENGTHS = [5, 1, 0, 7, 2]
STEPS, SAVED_AFTER = 4, 2
Masks = dict[int, Tensor]


def masks_of(step: Any, first: int) -> tuple[Masks, list[int]]:
    """``[T, D]`` bool mask of the tokens in each step from ``first`` on, and the seeds of all layers' masks.

    All ranks and steps get the same batch: masks differ by their seeds alone.
    """
    from unigrf_dist.model import hstu, llama, unigrf

    masks: Masks = {}
    seeds: list[int] = []

    def recorded(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Tensor:
            seeds.append(kwargs["seed"])
            return function(*args, **kwargs)

        return call

    batch = join(global_batch(0, LENGTHS))
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((unigrf, "seeded_dropout"), (llama, "seeded_dropout"), (hstu, "gated_norm_dropout")):
            patch.setattr(module, name, recorded(getattr(module, name)))
        for number in range(first, STEPS):
            keep = lambda _, given, number=number: masks.update({number: given[0].detach() == 0})  # noqa: E731
            hook = step.engine.module.backbone.register_forward_pre_hook(keep)
            step(batch, number)
            hook.remove()
    return masks, seeds


def through_and_resumed(run: Path, config: Any) -> list[tuple[Masks, list[int]]]:
    """A run of ``STEPS`` steps, and one that goes on from its checkpoint after ``SAVED_AFTER``."""
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
    from unigrf_dist.train.checkpoints.state import TrainState

    step = small_step(config)
    Checkpoints(run, step.engine, step.table, keep=1).save(TrainState(step=SAVED_AFTER))
    through = masks_of(step, 0)
    resumed = small_step(config)
    state = Checkpoints(run, resumed.engine, resumed.table, keep=1).load("latest")
    return [through, masks_of(resumed, state.step)]


def test_masks_differ_between_steps_ranks_and_layers_and_come_again_on_resuming(tmp_path: Path) -> None:
    config = small_config(model__dropout=0.3)
    through, resumed = zip(*run_ranks(2, through_and_resumed, tmp_path, config), strict=True)
    masks = [mask for of_rank, _ in through for mask in of_rank.values()]
    assert len(masks) == 2 * STEPS
    for index, mask in enumerate(masks):
        assert mask.any()
        assert not any(torch.equal(mask, other) for other in masks[:index])
    seeds = [seed for _, of_rank in through for seed in of_rank]
    assert len(set(seeds)) == len(seeds) >= 2 * STEPS * 3
    for (ours, our_seeds), (again, their_seeds) in zip(through, resumed, strict=True):
        assert set(again) == set(range(SAVED_AFTER, STEPS))
        assert all(torch.equal(again[number], ours[number]) for number in again)
        assert their_seeds == our_seeds[-len(their_seeds) :]


def masks_of_seeds(seeds: list[int]) -> list[Tensor]:
    """The last step's mask of runs of these seeds."""
    runs = [small_step(small_config(model__dropout=0.3, train__seed=seed)) for seed in seeds]
    return [masks_of(step, STEPS - 1)[0][STEPS - 1] for step in runs]


def test_another_seed_of_the_run_gives_other_masks() -> None:
    ((ours, again, theirs),) = run_ranks(1, masks_of_seeds, [5, 5, 6])
    assert torch.equal(ours, again)
    assert not torch.equal(ours, theirs)
