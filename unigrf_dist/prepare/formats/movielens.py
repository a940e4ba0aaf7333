"""MovieLens: 1M as ``ratings.dat``; 20M, 25M and 32M as ``ratings.csv`` (https://grouplens.org/datasets/movielens).

Side features are read from files beside the ratings if these exist: genres and year of the movies, and in 1M
gender, age and occupation of the users. The movies' titles are read too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unigrf_dist.prepare.source import FeatureColumn, FeatureSource, Source, find_files

# Titles end with the year in brackets.
_MOVIE_FEATURES = {
    "genre": FeatureColumn(column="genres", separator="|"),
    "year": FeatureColumn(column="title", pattern=r"\((\d{4})\)\s*$"),
}
_USER_FEATURES = {name: FeatureColumn(column=name) for name in ("gender", "age", "occupation")}
_DAT: dict[str, Any] = {"layout": "csv", "delimiter": "::", "quoted": False}


def ratings_dat(raw: Path) -> Source:
    """``user::item::rating::timestamp``, whole stars from 1 to 5."""
    files = find_files(raw, "ratings.dat")
    movies, users = (files[0].parent / name for name in ("movies.dat", "users.dat"))
    movie_header, user_header = ("movie", "title", "genres"), ("user", *_USER_FEATURES, "zip")
    latin: dict[str, Any] = {**_DAT, "encoding": "latin-1"}
    return Source(
        files=files,
        header=("user", "item", "rating", "timestamp"),
        user="user",
        item="item",
        timestamp="timestamp",
        behaviours={"rating": "rating"},
        limits=(1, 5),
        item_features=_beside(
            movies, key="movie", header=movie_header, features=_MOVIE_FEATURES, title="title", **latin
        ),
        user_features=_beside(users, key="user", header=user_header, features=_USER_FEATURES, **latin),
        notes=[*_missing_note("item", movies), *_missing_note("user", users)],
        **_DAT,
    )


def ratings_csv(raw: Path) -> Source:
    """``userId,movieId,rating,timestamp`` under a header line, half stars from 0.5 to 5."""
    files = find_files(raw, "ratings.csv", "ratings.csv.gz")
    movies = files[0].parent / "movies.csv"
    return Source(
        files=files,
        layout="csv",
        user="userId",
        item="movieId",
        timestamp="timestamp",
        behaviours={"rating": "rating"},
        limits=(0.5, 5),
        item_features=_beside(movies, layout="csv", key="movieId", features=_MOVIE_FEATURES, title="title"),
        notes=_missing_note("item", movies),
    )


def _beside(file: Path, **meaning: Any) -> FeatureSource | None:
    return FeatureSource(file=file, **meaning) if file.is_file() else None


def _missing_note(owner: str, file: Path) -> list[str]:
    return [] if file.is_file() else [f"no {owner} features: {file} is not there"]
