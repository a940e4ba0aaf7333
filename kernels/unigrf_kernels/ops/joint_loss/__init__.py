"""Retrieval softmax and ranking cross entropy over one hidden matrix; one forward gives both tasks' gradients."""

from .api import joint_loss
from .problem import JointLoss

__all__ = ["JointLoss", "joint_loss"]
