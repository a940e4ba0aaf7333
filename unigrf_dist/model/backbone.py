"""What a backbone is, and which ones there are. Nothing outside ``model/`` asks which one it runs on."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unigrf_dist.config.schema import ModelConfig
from unigrf_dist.model.hstu import HSTU
from unigrf_dist.model.llama import Llama
from unigrf_dist.model.tokens import TokenLayout

_BACKBONES: dict[str, type[HSTU] | type[Llama]] = {"hstu": HSTU, "llama": Llama}


class Backbone(Protocol):
    """A causal sequence transducer over packed tokens."""

    def __call__(self, tokens: Tensor, layout: TokenLayout, seed: int | None) -> Tensor:
        """``[T, D]`` token vectors → ``[T, D]`` hidden states.

        Args:
            tokens: packed token vectors.
            layout: where they lie in their sequences and in time.
            seed: seed of this step's dropout masks; None switches dropout off.
        """


def build_backbone(config: ModelConfig, *, max_tokens: int, kernel: str) -> HSTU | Llama:
    """The backbone that ``config.backbone`` names, for sequences of at most ``max_tokens`` tokens."""
    return _BACKBONES[config.backbone](config, max_tokens=max_tokens, kernel=kernel)


def backbone_flops(config: ModelConfig, tokens: NDArray[np.float64]) -> float:
    """Floating-point operations of the backbone's forward and backward, by the convention of ``model/flops.py``.

    Args:
        config: sizes of the model.
        tokens: ``[n]`` tokens of each sequence.
    """
    return _BACKBONES[config.backbone].flops(config, tokens)
