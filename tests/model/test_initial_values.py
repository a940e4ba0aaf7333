"""What a fresh model starts from, and which of its tensors are state."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.small_model import LABELS, NUM_ITEMS, RULES
from tests.train.small_run import small_config
from unigrf_dist.model.unigrf import UniGRF
from unigrf_dist.phases import Phases

WIDTH, HEADS, HEAD_WIDTH, BUCKETS, MAX_EVENTS = 48, 4, 10, 60, 70
INNER, TOKENS = HEADS * HEAD_WIDTH, 2 * (MAX_EVENTS + 1)
LLAMA = {"model__backbone": "llama", "model__key_heads": 2, "model__feedforward_width": 56}
NORMAL, ONES, ZEROS, XAVIER = "normal", "ones", "zeros", "xavier"
STD = 0.02
ALL = {
    "behaviours.weight": ((len(LABELS), WIDTH), NORMAL),
    "positions.weight": ((MAX_EVENTS + 1, WIDTH), NORMAL),
    "head_weight": ((len(RULES), WIDTH), NORMAL),
    "head_bias": ((len(RULES),), ZEROS),
}
BLOCK = {
    "hstu": {
        "norm_weight": ((WIDTH,), ONES),
        "norm_bias": ((WIDTH,), ZEROS),
        "uvqk": ((WIDTH, 4 * INNER), NORMAL),
        "position_bias": ((HEADS, TOKENS), NORMAL),
        "time_bias": ((HEADS, BUCKETS), NORMAL),
        "attention_norm_weight": ((INNER,), ONES),
        "attention_norm_bias": ((INNER,), ZEROS),
        "output": ((INNER, WIDTH), XAVIER),
    },
    "llama": {
        "attention_norm": ((WIDTH,), ONES),
        "qkv": ((WIDTH, INNER + INNER // 2 + INNER // 2), NORMAL),
        "position_bias": ((HEADS, TOKENS), NORMAL),
        "time_bias": ((HEADS, BUCKETS), NORMAL),
        "attention_output": ((INNER, WIDTH), XAVIER),
        "forward_norm": ((WIDTH,), ONES),
        "gate_up": ((WIDTH, 2 * 56), NORMAL),
        "down": ((56, WIDTH), XAVIER),
    },
}
TOP = {"hstu": {}, "llama": {"norm": ((WIDTH,), ONES)}}


def fresh(**changes: Any) -> UniGRF:
    torch.manual_seed(1)
    config = small_config(
        **{
            "data__max_events": MAX_EVENTS,
            "model__width": WIDTH,
            "model__heads": HEADS,
            "model__head_width": HEAD_WIDTH,
            "model__time_buckets": BUCKETS,
            "objective__ranking": RULES,
            **changes,
        }
    )
    return UniGRF(config, LABELS, num_items=NUM_ITEMS, phases=Phases())


def assert_starts_as(value: Tensor, kind: str, name: str) -> None:
    if kind in (ONES, ZEROS):
        assert (value == float(kind == ONES)).all(), name
        return
    spread = STD if kind == NORMAL else math.sqrt(2 / sum(value.shape))
    # Five standard errors of a sample's mean and deviation.
    assert abs(value.mean()) < 5 * spread / math.sqrt(value.numel()), name
    assert value.std() == pytest.approx(spread, rel=5 / math.sqrt(2 * value.numel())), name
    # A uniform distribution ends at sqrt(3) deviations; so many normal values go beyond.
    assert (value.abs().max() > math.sqrt(3) * spread) == (kind == NORMAL), name


@pytest.mark.parametrize(("backbone", "changes"), [("hstu", {}), ("llama", LLAMA)], ids=["hstu", "llama"])
def test_shapes_and_spreads_of_all_parameters(backbone: str, changes: dict[str, Any]) -> None:
    expected = {**ALL, **{f"backbone.{name}": value for name, value in TOP[backbone].items()}}
    for block in (0, 1):
        expected |= {f"backbone.blocks.{block}.{name}": value for name, value in BLOCK[backbone].items()}
    model = fresh(**changes)
    parameters = dict(model.named_parameters())
    assert parameters.keys() == expected.keys()
    for name, (shape, kind) in expected.items():
        assert parameters[name].shape == shape, name
        assert_starts_as(parameters[name].detach(), kind, name)
    # Labels and weights of tasks come from the configuration, not from a checkpoint.
    assert model.state_dict().keys() == expected.keys()


@pytest.mark.parametrize("changes", [{}, LLAMA], ids=["hstu", "llama"])
def test_biases_are_there_only_if_they_are_asked_for(changes: dict[str, Any]) -> None:
    for position, time in ((True, False), (False, True)):
        names = fresh(model__position_bias=position, model__time_bias=time, **changes).state_dict().keys()
        assert any("position_bias" in name for name in names) == position
        assert any("time_bias" in name for name in names) == time


@pytest.mark.parametrize("changes", [{}, {"model__backbone": "llama"}], ids=["hstu", "llama"])
def test_what_both_tasks_share_last_is_the_last_block(changes: dict[str, Any]) -> None:
    model = fresh(**changes)
    shared = {id(parameter) for parameter in model.last_shared_parameters()}
    assert shared == {id(p) for name, p in model.named_parameters() if name.startswith("backbone.blocks.1.")}


def test_a_key_head_for_every_query_head_and_two_thirds_of_four_widths_unless_set() -> None:
    block = fresh(model__backbone="llama").backbone.blocks[0]
    assert block.qkv.shape == (WIDTH, 3 * INNER)
    assert block.gate_up.shape == (WIDTH, 2 * 128)
    assert block.down.shape == (128, WIDTH)
