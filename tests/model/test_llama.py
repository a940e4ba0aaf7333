"""The Llama backbone against its definition, token by token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.train.small_run import global_batch, join, small_config
from unigrf_dist.model.llama import Llama, LlamaBlock, default_feedforward_width
from unigrf_dist.model.tokens import TokenLayout, token_layout


def built(**changes: object) -> tuple[Llama, TokenLayout, Tensor]:
    config = small_config(model__backbone="llama", **changes)
    torch.manual_seed(0)
    backbone = Llama(config.model, max_tokens=26, kernel="torch")
    batch = join(global_batch(0, [4, 0, 7]))
    return backbone, token_layout(batch, max_length=26, query_time_visible=False), torch.randn(22, 12)


def by_hand(block: LlamaBlock, x: Tensor) -> Tensor:
    """One sequence, without biases."""

    def norm(t: Tensor, weight: Tensor) -> Tensor:
        return t / (t.square().mean(1, keepdim=True) + 1e-6).sqrt() * weight

    projected = norm(x, block.attention_norm) @ block.qkv
    q, k, v = (part.unflatten(1, (-1, 8)).transpose(0, 1) for part in projected.split(block.splits, dim=1))
    angles = torch.arange(len(x))[:, None] * 10000.0 ** (-torch.arange(4) / 4)
    cos, sin = angles.cos(), angles.sin()

    def turn(t: Tensor) -> Tensor:
        first, second = t.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    repeat = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(repeat, 0), v.repeat_interleave(repeat, 0)
    attended = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)
    x = x + attended.transpose(0, 1).flatten(1) @ block.attention_output
    gate, up = (norm(x, block.forward_norm) @ block.gate_up).chunk(2, dim=1)
    return x + (F.silu(gate) * up) @ block.down


def test_the_blocks_are_those_of_the_paper_with_grouped_queries() -> None:
    backbone, layout, tokens = built(model__position_bias=False, model__time_bias=False, model__key_heads=1)
    ours = backbone(tokens, layout, None)
    parts = []
    for part in (tokens[:8], tokens[8:]):
        for block in backbone.blocks:
            part = by_hand(block, part)
        parts.append(part / (part.square().mean(1, keepdim=True) + 1e-6).sqrt())
    assert torch.allclose(ours, torch.cat(parts), atol=1e-4)


def test_a_later_token_changes_nothing_before_it() -> None:
    backbone, layout, tokens = built()
    before = backbone(tokens, layout, None)
    tokens[15] += 1.0
    after = backbone(tokens, layout, None)
    assert torch.equal(after[:15], before[:15])
    assert not torch.equal(after[15:], before[15:])


def test_dropout_depends_on_the_seed_alone() -> None:
    backbone, layout, tokens = built(model__dropout=0.4)
    assert torch.equal(backbone(tokens, layout, 5), backbone(tokens, layout, 5))
    assert not torch.equal(backbone(tokens, layout, 5), backbone(tokens, layout, 6))


def test_the_feed_forward_width_is_two_thirds_of_four_times_the_width() -> None:
    assert default_feedforward_width(48) == 128
    assert default_feedforward_width(50) == 136
