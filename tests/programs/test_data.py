"""The data commands, as a user types them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.prepare.raw_files import sequences, write_raw
from unigrf_dist.cli import main


def unigrf(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the command line in this process. Returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["unigrf", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_prepare_own_columns_then_inspect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_raw(tmp_path, "raw.tsv", "who\twhat\twhen\tclick", "ann\tx\t2000\t1", "ann\ty\t1000\t0")
    named = ("user=who", "item=what", "timestamp=when", "behaviour=click")
    columns = [word for name in named for word in ("--column", name)]
    options = ("--string-ids", "--time-unit", "ms", "--delimiter", "\t")
    assert unigrf(monkeypatch, "prepare", "csv", "--raw", raw, "--out", tmp_path / "out", *columns, *options) == 0
    assert sequences(tmp_path / "out") == {"ann": [("y", {"click": 0.0}, 1), ("x", {"click": 1.0}, 2)]}
    assert unigrf(monkeypatch, "inspect", tmp_path / "out", "--verify") == 0
    assert (tmp_path / "out" / "inspect.png").is_file()
    assert "click = 1" in capsys.readouterr().out


def test_prepare_by_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        write_raw(tmp_path / "raw", f"{name}.csv", "user_id,item_id,timestamp", "1,5,9", "2,6,9")
    words = ("prepare", "csv", "--raw", tmp_path / "raw", "--out", tmp_path / "out", "--column", "user=user_id")
    assert unigrf(monkeypatch, *words, "--share", "0/2") == 0
    assert "1 of 2 files are still to be read; start it again then" in " ".join(capsys.readouterr().out.split())
    assert unigrf(monkeypatch, *words, "--share", "1/2") == 0
    assert unigrf(monkeypatch, *words, "--share", "0/2") == 0
    assert "merge without --share" in " ".join(capsys.readouterr().out.split()[-20:])
    assert unigrf(monkeypatch, *words) == 0
    assert sorted(sequences(tmp_path / "out")) == [1, 2]
    assert unigrf(monkeypatch, *words, "--share", "2/2") == 2


def test_bench_prepare_tells_what_it_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ("--events", 5000, "--users", 100, "--items", 50, "--folder", tmp_path)
    assert unigrf(monkeypatch, "bench", "prepare", *sizes) == 0
    assert "5,000 events, 100 users, 50 items" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_synthesize_then_inspect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ("--users", 60, "--items", 80, "--mean-length", 8, "--seed", 3)
    assert unigrf(monkeypatch, "synthesize", "--out", tmp_path / "out", *sizes) == 0
    assert unigrf(monkeypatch, "inspect", tmp_path / "out", "--picture", tmp_path / "picture.png") == 0
    assert (tmp_path / "picture.png").is_file()
    assert "rating = 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("prepare", "movielens-1m", "--raw", "RAW", "--out", "OUT"), "line 2: column item: 'x' is no integer"),
        (("prepare", "netflix", "--raw", "RAW", "--out", "OUT"), "format 'netflix' is unknown"),
        (("prepare", "csv", "--raw", "RAW", "--out", "OUT", "--column", "colour=red"), "write MEANING=NAME"),
        (("prepare", "csv", "--raw", "RAW", "--out", "OUT", "--column", "user"), "write MEANING=NAME"),
        (
            ("prepare", "csv", "--raw", "RAW", "--out", "OUT", "--column", "user=a", "--column", "user=b"),
            "user is given twice",
        ),
        (("prepare", "amazon", "--raw", "RAW", "--out", "OUT", "--string-ids"), "knows its columns"),
        (("synthesize", "--out", "OUT", "--items", "10"), "num_items is 10"),
        (("inspect", "OUT"), "manifest.json is missing"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_two(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    expected: str,
) -> None:
    raw = write_raw(tmp_path, "ratings.dat", "1::1::1::1", "1::x::1::1")
    paths = {"RAW": raw, "OUT": tmp_path / "out"}
    assert unigrf(monkeypatch, *(paths.get(word, word) for word in words)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert expected in lines[0]
    assert not (tmp_path / "out").exists()
