"""What a backbone is, and which ones there are. Nothing outside ``model/`` asks which one it runs on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from unigrf_dist.config.schema import ModelConfig
from unigrf_dist.errors import UserError
from unigrf_dist.model.hstu import HSTU
from unigrf_dist.model.kept_keys import KeysValues, NewTokens
from unigrf_dist.model.llama import Llama
from unigrf_dist.model.padded_tokens import PaddedTokens
from unigrf_dist.model.tokens import TokenLayout


class Backbone(Protocol):
    """A causal sequence transducer over packed tokens; a module.

    Attributes:
        blocks: its blocks, of which the last one's parameters are what both tasks share last.
    """

    blocks: nn.ModuleList

    def __init__(self, config: ModelConfig, *, max_tokens: int, kernel: str) -> None: ...

    def __call__(self, tokens: Tensor, layout: TokenLayout, seed: int | None) -> Tensor:
        """``[T, D]`` token vectors → ``[T, D]`` hidden states.

        Args:
            tokens: packed token vectors.
            layout: where they lie in their sequences and in time; attention takes ``layout.attention``, which also
                keeps candidates apart.
            seed: seed of this step's dropout masks, itself taken by the tokens: use ``seed + 1`` and on, fewer
                than 4096; None switches dropout off.
        """

    def extend(
        self, tokens: Tensor, layout: NewTokens | PaddedTokens, kept: Sequence[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        """The same hidden states for new tokens alone: ``[N, D]`` → ``[N, D]``. Forward only, no dropout.

        Args:
            tokens: packed vectors of the new tokens.
            layout: where they stand behind the kept ones. Attention is `padded_tokens.attend`, which takes either
                kind.
            kept: for each block keys and values of the kept tokens; None where nothing is kept yet.

        Returns:
            Hidden states, and for each block the keys and values of kept and new tokens, which the next call takes
            unless candidates are among them.
        """

    @staticmethod
    def flops(config: ModelConfig, tokens: NDArray[np.float64]) -> float:
        """Operations of all blocks, forward and backward, over sequences of ``tokens`` tokens, ``[n]``."""

    @staticmethod
    def problems(config: ModelConfig) -> Iterator[str]:
        """What of ``config`` this backbone can not be built with: key, value, what is allowed."""


_BACKBONES: dict[str, type[Backbone]] = {"hstu": HSTU, "llama": Llama}


def build_backbone(config: ModelConfig, *, max_tokens: int, kernel: str) -> Backbone:
    """The backbone that ``config.backbone`` names, for sequences of at most ``max_tokens`` tokens."""
    return _BACKBONES[config.backbone](config, max_tokens=max_tokens, kernel=kernel)


def refuse_unbuildable(config: ModelConfig) -> None:
    """Raise UserError where the backbone that is named has no such sizes; all of them in one message."""
    if problems := list(_BACKBONES[config.backbone].problems(config)):
        raise UserError("; ".join(problems))


def backbone_flops(config: ModelConfig, tokens: NDArray[np.float64]) -> float:
    """Floating-point operations of the backbone's forward and backward, by the convention of ``model/flops.py``.

    Args:
        config: sizes of the model.
        tokens: ``[n]`` tokens of each sequence.
    """
    return _BACKBONES[config.backbone].flops(config, tokens)
