"""Causal attention over packed sequences, with HSTU's learned biases and candidate tokens."""

from .api import jagged_attention
from .plan import AttentionPlan, plan_attention

__all__ = ["AttentionPlan", "jagged_attention", "plan_attention"]
