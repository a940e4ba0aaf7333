"""The fused operators of a Llama block around its attention and its products."""

from .api import rms_norm, rotary, swiglu

__all__ = ["rms_norm", "rotary", "swiglu"]
