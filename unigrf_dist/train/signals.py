"""What a rank tells the others with each step: carried by the reduction of the counts, so it costs no exchange."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Signals(NamedTuple):
    """Numbers of ranks, once summed; one rank's own are 0 or 1.

    Attributes:
        stop: asked to stop by a signal of the system.
        save: rank 0's clock says that a checkpoint is due.
        validate: rank 0's clock says that a validation is due.
        unwritten: still writing its part of a checkpoint.
    """

    stop: float = 0.0
    save: float = 0.0
    validate: float = 0.0
    unwritten: float = 0.0

    @staticmethod
    def of(summed: Tensor) -> Signals:
        """From the ``[4]`` sums over ranks; waits for the device."""
        return Signals(*summed.tolist())
