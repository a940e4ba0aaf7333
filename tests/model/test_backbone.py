"""Backbones by name, and sizes that they can not be built with."""

from __future__ import annotations

from typing import Any

import pytest

from unigrf_dist.config.schema import ModelConfig
from unigrf_dist.errors import UserError
from unigrf_dist.model.backbone import build_backbone, refuse_unbuildable
from unigrf_dist.model.hstu import HSTU
from unigrf_dist.model.llama import Llama, default_feedforward_width

SIZES = {"width": 8, "blocks": 3, "heads": 4, "head_width": 6}


def config(backbone: str, **changes: Any) -> ModelConfig:
    return ModelConfig.model_validate({**SIZES, "backbone": backbone, **changes})


@pytest.mark.parametrize(("name", "kind"), [("hstu", HSTU), ("llama", Llama)])
def test_a_name_gives_its_backbone_of_as_many_blocks(name: str, kind: type) -> None:
    built = build_backbone(config(name), max_tokens=10, kernel="torch")
    assert type(built) is kind
    assert len(built.blocks) == 3


@pytest.mark.parametrize(
    "legal", [{}, {"key_heads": 1}, {"key_heads": 2}, {"key_heads": 4}, {"feedforward_width": 7}]
)
def test_sizes_that_can_be_built_are_not_refused(legal: dict[str, int]) -> None:
    refuse_unbuildable(config("llama", **legal))
    refuse_unbuildable(config("hstu", head_width=5))


def test_hstu_names_every_key_that_it_does_not_have() -> None:
    with pytest.raises(
        UserError, match=r"^model\.key_heads is set, .*; model\.feedforward_width is set, [^;]*; remo"
    ):
        refuse_unbuildable(config("hstu", key_heads=2, feedforward_width=16))
    with pytest.raises(
        UserError, match=r"^model\.feedforward_width is set, but model\.backbone hstu does not have it"
    ):
        refuse_unbuildable(config("hstu", feedforward_width=16))


def test_llama_names_uneven_groups_and_odd_widths() -> None:
    with pytest.raises(UserError, match=r"^model\.heads = 4 is no multiple of model\.key_heads = 3$"):
        refuse_unbuildable(config("llama", key_heads=3))
    with pytest.raises(UserError, match=r"key_heads = 3; model\.head_width = 7 is odd"):
        refuse_unbuildable(config("llama", key_heads=3, head_width=7))


def test_the_feed_forward_width_is_two_thirds_of_four_widths_rounded_up_to_eights() -> None:
    by_hand = {1: 8, 3: 8, 4: 16, 6: 16, 7: 24, 9: 24, 48: 128, 512: 1368}
    assert {width: default_feedforward_width(width) for width in by_hand} == by_hand
