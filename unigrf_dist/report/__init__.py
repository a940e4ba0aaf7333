"""``unigrf report``: one self-contained HTML page about a run."""

from unigrf_dist.report.page import write_report

__all__ = ["write_report"]
