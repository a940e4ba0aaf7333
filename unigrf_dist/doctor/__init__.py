"""``unigrf doctor``: what this machine has, what it lacks for training, and the command that mends it."""

from unigrf_dist.doctor.check import Check, Status
from unigrf_dist.doctor.verdict import examine, run

__all__ = ["Check", "Status", "examine", "run"]
