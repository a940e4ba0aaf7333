"""KuaiRand: logs of a video application with several kinds of feedback (https://kuairand.com)."""

from __future__ import annotations

from pathlib import Path

from unigrf_dist.prepare.source import Source, find_files

# Column of each behaviour value, by the value's name; all values are 0 or 1.
_FEEDBACK = {
    "click": "is_click",
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "hate": "is_hate",
    "long_view": "long_view",
}


def standard_log(raw: Path) -> Source:
    """The standard logs (without those of random exposure): csv with a header line, times in milliseconds."""
    return Source(
        files=find_files(raw, "log_standard*.csv", "data/log_standard*.csv"),
        layout="csv",
        user="user_id",
        item="video_id",
        timestamp="time_ms",
        time_unit="ms",
        behaviours=_FEEDBACK,
        limits=(0, 1),
    )
