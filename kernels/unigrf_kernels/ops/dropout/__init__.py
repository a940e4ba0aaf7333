"""Dropout whose mask is a pure function of a seed and of each element's index."""

from .api import seeded_dropout

__all__ = ["seeded_dropout"]
