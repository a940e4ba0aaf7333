"""The definitions, in the dtype of the inputs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import layer_norm, silu

from ..dropout.reference import reference_dropout


def reference_norm_project_silu(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, splits: Sequence[int], eps: float
) -> tuple[Tensor, ...]:
    """``silu(layer_norm(x) @ weight)``, cut into columns."""
    normed = layer_norm(x, x.shape[1:], norm_weight.to(x.dtype), norm_bias.to(x.dtype), eps)
    return tuple(part.contiguous() for part in silu(normed @ weight).split(list(splits), dim=1))


def reference_gated_norm_dropout(
    attention: Tensor,
    gate: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    dropout: float,
    seed: Tensor,
    eps: float,
) -> Tensor:
    """``dropout(gate * layer_norm(attention))``."""
    dtype = attention.dtype
    normed = layer_norm(attention, attention.shape[1:], norm_weight.to(dtype), norm_bias.to(dtype), eps)
    gated = gate * normed
    return gated if dropout == 0.0 else reference_dropout(gated, dropout=dropout, seed=seed)
