"""The two fused operators of an HSTU block around its attention."""

from .api import gated_norm_dropout, norm_project_silu

__all__ = ["gated_norm_dropout", "norm_project_silu"]
