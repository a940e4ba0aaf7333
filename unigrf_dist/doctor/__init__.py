"""``unigrf doctor``: what this machine has for training, what it lacks, and the command that fixes it."""

from unigrf_dist.doctor.check import Check, Status
from unigrf_dist.doctor.verdict import examine, run

__all__ = ["Check", "Status", "examine", "run"]
