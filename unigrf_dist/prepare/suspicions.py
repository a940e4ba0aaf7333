"""Warnings about raw data that can be read and is probably not what was meant."""

from __future__ import annotations

from collections.abc import Sequence

from unigrf_dist.data.manifest import DataWarning, SkippedRows
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.raw_checks import MICROSECONDS_PER_SECOND
from unigrf_dist.prepare.source import Source
from unigrf_dist.prepare.sql import sql_text

_YEAR = 366 * 86_400 * MICROSECONDS_PER_SECOND
_YEAR_2100 = 4_102_444_800 * MICROSECONDS_PER_SECOND
# How programs write an id that they do not have.
_NO_ID = ("null", "nan", "none", "nil", "undefined", "n/a", r"\n")
_MANY_VALUES = 100
_MAX_SKIPPED = 0.01


def suspicious_counts(source: Source) -> list[str]:
    """SQL aggregates over events, whose results ``suspicions_of_events`` understands."""
    words = ", ".join(map(sql_text, _NO_ID))
    counts = [f"count(*) FILTER (time BETWEEN -{_YEAR} AND {_YEAR})", f"count(*) FILTER (time > {_YEAR_2100})"]
    return counts + [f"count(*) FILTER (lower(trim({owner}_key)) IN ('', {words}))" for owner in _text_ids(source)]


def suspicions_of_events(source: Source, counts: Sequence[int]) -> list[DataWarning]:
    """Warnings about times and ids of all events, by what ``suspicious_counts`` has counted."""
    early, late, *no_ids = counts
    unit = f"is the unit of the times really {source.time_unit}? (--time-unit)"
    found = [
        (
            "times_in_1970",
            0 if source.relative_times else early,
            f"{early:,} events lie within a year of 1970: {unit}",
        ),
        ("times_after_2100", late, f"{late:,} events lie after 2100: {unit}"),
    ]
    for owner, count in zip(_text_ids(source), no_ids, strict=True):
        found.append(
            (
                f"no_{owner}",
                count,
                f"{count:,} events have a {owner} id such as NULL, nan or blanks: all are one {owner}",
            )
        )
    return [DataWarning(kind=kind, count=count, message=message) for kind, count, message in found if count]


def suspicions_of_values(source: Source, behaviours: Sequence[dict[str, float]]) -> list[DataWarning]:
    """Warnings about behaviour values that look continuous."""
    found = []
    for name in source.behaviours:
        values = len({behaviour[name] for behaviour in behaviours if name in behaviour})
        if values > _MANY_VALUES:
            message = (
                f"{name} has {values:,} distinct values, each a token of its own: a continuous one is better put "
                f"into buckets (--buckets {name}=…)"
            )
            found.append(DataWarning(kind="continuous_values", count=values, message=message))
    return found


def suspicion_of_skipped(skipped: SkippedRows, num_events: int, max_skipped: float | None) -> list[DataWarning]:
    """A warning if more than 1 % of the rows were skipped.

    Args:
        skipped: the rows that were.
        num_events: number of those that were not.
        max_skipped: largest share of skipped rows, in [0, 1]; None for any.

    Raises:
        UserError: more than ``max_skipped`` of the rows were skipped.
    """
    if not skipped.count:
        return []
    share = skipped.count / (skipped.count + num_events)
    told = f"{skipped.count:,} rows, {share:.1%} of all, could not be read and were skipped"
    if max_skipped is not None and share > max_skipped:
        raise UserError(f"{told}; allowed are {max_skipped:.1%} (--max-skipped); first: {skipped.sample[0]}")
    return [DataWarning(kind="skipped_rows", count=skipped.count, message=told)] if share > _MAX_SKIPPED else []


def dropped_duplicates(count: int) -> list[DataWarning]:
    """A warning of how many duplicates were dropped, if any."""
    message = f"{count:,} exact duplicates were dropped (--drop-duplicates)"
    return [DataWarning(kind="dropped_duplicates", count=count, message=message)] if count else []


def suspicion_of_duplicates(count: int) -> list[DataWarning]:
    """A warning if there are events that equal another one."""
    message = (
        f"{count:,} events repeat another one exactly: are files read twice? (--drop-duplicates keeps the first)"
    )
    return [DataWarning(kind="duplicates", count=count, message=message)] if count else []


def _text_ids(source: Source) -> list[str]:
    ids = {"user": source.user_type, "item": source.item_type}
    return [owner for owner, kind in ids.items() if kind == "string"]
