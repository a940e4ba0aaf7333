"""Triton kernels and CPU paths for generative recommenders over packed sequences.

Importing the package loads torch but not triton, which an operator imports when a kernel first runs.
"""

from unigrf_kernels.ops.dropout import seeded_dropout
from unigrf_kernels.ops.hstu_layer import gated_norm_dropout, norm_project_silu
from unigrf_kernels.ops.jagged_attention import AttentionPlan, jagged_attention, plan_attention
from unigrf_kernels.ops.joint_loss import JointLoss, joint_loss
from unigrf_kernels.ops.llama_layer import rms_norm, rotary, swiglu

__all__ = [
    "AttentionPlan",
    "JointLoss",
    "__version__",
    "gated_norm_dropout",
    "jagged_attention",
    "joint_loss",
    "norm_project_silu",
    "plan_attention",
    "rms_norm",
    "rotary",
    "seeded_dropout",
    "swiglu",
]

# The only place of the version: the build reads this line without importing the package.
__version__ = "0.1.0"
