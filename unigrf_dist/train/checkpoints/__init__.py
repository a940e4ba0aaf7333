"""Checkpoints: complete or absent, readable by any number of ranks and any sharding, and checked byte by byte."""

from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
from unigrf_dist.train.checkpoints.state import TrainState

__all__ = ["Checkpoints", "TrainState"]
