"""Yambda: five billion events of a music service (https://huggingface.co/datasets/yandex/yambda)."""

from __future__ import annotations

from pathlib import Path

from unigrf_dist.prepare.source import Source, find_files

# The benchmark takes a track as listened to from 50 percent on.
_PLAYED_PERCENT = (0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0)


def multi_event(raw: Path) -> Source:
    """``multi_event.parquet`` of one of its sizes: listens, likes, dislikes and what takes them back.

    Values are 1 for the kind of the event (``listen``, ``like``, ``unlike``, ``dislike``, ``undislike``),
    ``organic`` (1 if no recommendation led to it) and ``played``, percent of the track in tens, which only listens
    have. Times are seconds from a day that was not published, in steps of 5.
    """
    return Source(
        files=find_files(raw, "multi_event.parquet"),
        layout="parquet",
        user="uid",
        item="item_id",
        timestamp="timestamp",
        relative_times=True,
        event_type="event_type",
        behaviours={"organic": "is_organic", "played": "played_ratio_pct"},
        buckets={"played": _PLAYED_PERCENT},
        may_be_missing=True,
    )
