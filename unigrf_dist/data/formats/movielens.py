"""MovieLens: 1M as ``ratings.dat``; 20M, 25M and 32M as ``ratings.csv`` (https://grouplens.org/datasets/movielens)."""

from __future__ import annotations

from pathlib import Path

from unigrf_dist.data.source import Source, find_files


def ratings_dat(raw: Path) -> Source:
    """``user::item::rating::timestamp``, whole stars from 1 to 5."""
    return Source(
        files=find_files(raw, "ratings.dat"),
        layout="csv",
        delimiter="::",
        quoted=False,
        header=("user", "item", "rating", "timestamp"),
        user="user",
        item="item",
        timestamp="timestamp",
        behaviours={"rating": "rating"},
        limits=(1, 5),
    )


def ratings_csv(raw: Path) -> Source:
    """``userId,movieId,rating,timestamp`` under a header line, half stars from 0.5 to 5."""
    return Source(
        files=find_files(raw, "ratings.csv", "ratings.csv.gz"),
        layout="csv",
        user="userId",
        item="movieId",
        timestamp="timestamp",
        behaviours={"rating": "rating"},
        limits=(0.5, 5),
    )
