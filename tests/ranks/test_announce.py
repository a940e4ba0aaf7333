"""Lines before the progress bar: from rank 0 alone, and of an operator only where it has to be compiled."""

from __future__ import annotations

import pytest

from unigrf_dist.ranks.announce import announce_once


def test_one_rank_speaks_for_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        announce_once(f"rank {rank}")
    monkeypatch.delenv("RANK")
    announce_once("alone")
    assert capsys.readouterr().out == "rank 0\nalone\n"
