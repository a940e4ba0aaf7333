"""Operations of the backbones, counted by hand, product by product."""

from __future__ import annotations

import numpy as np

from tests.model.small_model import jagged_batch
from unigrf_dist.config.schema import ModelConfig
from unigrf_dist.model.backbone import backbone_flops
from unigrf_dist.model.flops import CONVENTION, TOKENS_PER_EVENT, retrieval_head_flops
from unigrf_dist.model.tokens import token_layout

TOKENS = np.array([6.0, 4.0])  # 10 together, 36 + 16 = 52 squares


def test_hstu_by_hand() -> None:
    config = ModelConfig(backbone="hstu", width=8, blocks=3, heads=2, head_width=5)
    # u, v, q and k: 8 x 10 each; output: 10 x 8.
    projections = 4 * (2 * 10 * 8 * 10) + 2 * 10 * 10 * 8
    # q k^T and A v, 2 T² head_width each for every head, half of it behind the causal mask.
    attention = 2 * 2 * 52 * 5 * 2 // 2
    assert backbone_flops(config, TOKENS) == 3 * (3 * projections + 3.5 * attention)


def test_llama_with_shared_keys_by_hand() -> None:
    config = ModelConfig(
        backbone="llama", width=8, blocks=2, heads=4, head_width=6, key_heads=2, feedforward_width=20
    )
    # q: 8 x 24; k and v: 8 x 12 each; output: 24 x 8; gate and up: 8 x 20 each; down: 20 x 8.
    projections = 2 * 10 * (8 * 24 + 2 * 8 * 12 + 24 * 8 + 2 * 8 * 20 + 20 * 8)
    attention = 2 * 2 * 52 * 6 * 4 // 2
    assert backbone_flops(config, TOKENS) == 2 * (3 * projections + 3.5 * attention)


def test_llama_takes_its_default_widths() -> None:
    config = ModelConfig(backbone="llama", width=6, blocks=1, heads=1, head_width=6)
    # Two thirds of 4 x 6 are 16; q, k, v and output: 6 x 6 each; gate, up and down: 6 x 16 each.
    projections = 2 * 10 * (4 * 36 + 3 * 6 * 16)
    assert backbone_flops(config, TOKENS) == 3 * projections + 3.5 * 2 * 52 * 6


def test_retrieval_head_is_one_product_of_queries_and_candidates() -> None:
    assert retrieval_head_flops(7, 100, 8) == 3 * 2 * 7 * 100 * 8


def test_an_event_has_as_many_tokens_as_the_model_lays_out() -> None:
    batch = jagged_batch()
    layout = token_layout(batch, max_length=20, query_time_visible=False, num_candidates=0)
    assert layout.token_positions.numel() == TOKENS_PER_EVENT * batch.num_events


def test_the_convention_is_told_as_it_is_counted() -> None:
    assert "GEMM 2mnk forward, twice that backward" in CONVENTION
    assert "2.5 times that backward" in CONVENTION
