"""Dropout inside the model: where it falls, what it keeps of the expectation, and that no two masks are alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.small_model import Small, model_config, small_model
from unigrf_dist.model import hstu, llama, unigrf

DROPOUT = 0.25  # a multiple of 2^-16
LLAMA = {"model__backbone": "llama"}


def small(**changes: Any) -> Small:
    return small_model(model_config(model__dropout=DROPOUT, **changes))


def backbone_inputs(of: Small, seeds: list[int | None]) -> list[Tensor]:
    """``[T, D]`` tokens that the backbone gets under each seed."""
    inputs: list[Tensor] = []
    hook = of.model.backbone.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()))
    for seed in seeds:
        of.forward(seed)
    hook.remove()
    return inputs


def test_tokens_are_dropped_and_the_kept_ones_scaled_up() -> None:
    plain, *dropped = backbone_inputs(small(), [None, *range(0, 50_000, 1000)])
    kept = torch.stack(dropped) != 0
    assert not (plain == 0).any()
    for tokens, mask in zip(dropped, kept, strict=True):
        torch.testing.assert_close(tokens[mask], plain[mask] / (1 - DROPOUT))
    deviation = (DROPOUT * (1 - DROPOUT) / kept.numel()) ** 0.5
    assert abs(kept.double().mean() - (1 - DROPOUT)) < 5 * deviation


def test_equal_seeds_give_equal_masks_and_other_seeds_others() -> None:
    first, again, other = backbone_inputs(small(), [7, 7, 8])
    assert torch.equal(first, again)
    assert not torch.equal(first == 0, other == 0)


def test_without_a_seed_nothing_is_dropped() -> None:
    with_dropout, without = small(), small_model(model_config(model__dropout=0.0))
    assert torch.equal(with_dropout.hidden(None), without.hidden(None))
    assert torch.equal(with_dropout.hidden(0), with_dropout.hidden(0))
    assert not torch.equal(with_dropout.hidden(0), with_dropout.hidden(None)), "seed 0 is a seed"


# What is left of a block is linear in its mask, so that its mean over masks is the block without dropout.
@pytest.mark.parametrize(
    ("changes", "silenced"),
    [({}, []), (LLAMA, ["attention_output"]), (LLAMA, ["down"])],
    ids=["hstu", "llama_feed_forward", "llama_attention"],
)
def test_a_blocks_dropout_keeps_its_expectation(changes: dict, silenced: list[str]) -> None:
    of = small(**changes)
    block, draws = of.model.backbone.blocks[0], 300
    calls: list[tuple] = []
    hook = block.register_forward_hook(lambda _, given, output: calls.append((given, output.detach())))
    for name in silenced:
        getattr(block, name).data.zero_()
    of.forward(None)
    hook.remove()
    (((x, layout, _), plain),) = calls
    with torch.no_grad():
        outputs = torch.stack([block(x, layout, seed) for seed in range(0, 10 * draws, 10)])
    assert not torch.equal(outputs[0], plain)
    deviation = outputs.std(0) / draws**0.5
    assert ((outputs.mean(0) - plain).abs() <= 6 * deviation + 1e-12).all()


@pytest.mark.parametrize("changes", [{}, LLAMA], ids=["hstu", "llama"])
def test_no_two_masks_of_a_step_share_a_seed(changes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def recorded(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Tensor:
            seeds.append(kwargs["seed"])
            return function(*args, **kwargs)

        return call

    for module, name in ((unigrf, "seeded_dropout"), (llama, "seeded_dropout"), (hstu, "gated_norm_dropout")):
        monkeypatch.setattr(module, name, recorded(getattr(module, name)))
    of = small(**changes, model__blocks=3)
    of.forward(4096)
    assert len(seeds) == (7 if changes else 4)
    assert len(set(seeds)) == len(seeds)
    assert all(4096 <= seed < 2 * 4096 for seed in seeds), "the next step's or rank's seeds begin there"
