"""MovieTweetings: ratings from tweets (https://github.com/sidooms/MovieTweetings)."""

from __future__ import annotations

from pathlib import Path

from unigrf_dist.prepare.source import Source, find_files


def ratings_dat(raw: Path) -> Source:
    """``user::item::rating::timestamp``; items are IMDb numbers, ratings whole numbers from 0 to 10."""
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
        limits=(0, 10),
    )
