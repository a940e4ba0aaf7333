"""Lines before the progress bar: from rank 0 alone, and of an operator only where it has to be compiled."""

from __future__ import annotations

from pathlib import Path

import pytest

from unigrf_dist.ranks import runtime
from unigrf_dist.ranks.announce import announce_once


def test_one_rank_speaks_for_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        announce_once(f"rank {rank}")
    monkeypatch.delenv("RANK")
    announce_once("alone")
    assert capsys.readouterr().out == "rank 0\nalone\n"


def test_an_operator_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert not runtime._is_compiled("some_operator")
    (tmp_path / "some_operator" / "some_operator.so").write_bytes(b"")
    assert runtime._is_compiled("some_operator")
