"""The raw formats that can be prepared. To add one, write a function in this folder and register it below.

A format is a function that looks at the path the user named and describes what lies there as a ``Source``;
reading, checking and sorting are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unigrf_dist.data.formats import movielens
from unigrf_dist.data.source import ColumnMapping, Source
from unigrf_dist.errors import UserError

FORMATS: dict[str, Callable[[Path], Source]] = {
    "movielens-1m": movielens.ratings_dat,
    "movielens-20m": movielens.ratings_csv,
}
