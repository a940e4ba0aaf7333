"""What a backbone is, and which ones there are. Nothing outside ``model/`` asks which one it runs on."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from unigrf_dist.config.schema import ModelConfig
from unigrf_dist.model.hstu import HSTU
from unigrf_dist.model.tokens import TokenLayout


class Backbone(Protocol):
    """A causal sequence transducer over packed tokens."""

    def __call__(self, tokens: Tensor, layout: TokenLayout, seed: int | None) -> Tensor:
        """``[T, D]`` token vectors → ``[T, D]`` hidden states.

        Args:
            tokens: packed token vectors.
            layout: their place in sequence and time.
            seed: of this step's dropout masks; None switches dropout off.
        """


def build_backbone(config: ModelConfig, *, max_tokens: int, kernel: str) -> nn.Module:
    """The backbone that ``config.backbone`` names, for sequences of at most ``max_tokens`` tokens."""
    backbones = {"hstu": HSTU}
    return backbones[config.backbone](config, max_tokens=max_tokens, kernel=kernel)
