"""``unigrf bench serve`` measures what it says: every shape and way once, and refuses what it cannot draw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.train.small_run import small_config
from unigrf_dist.config import save_config
from unigrf_dist.programs.bench_serve.command import bench_serve
from unigrf_dist.programs.bench_serve.times import Times


def run(folder: Path, *options: str, rules: Sequence[str] = ("rating >= 4",)) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(bench_serve)
    config = small_config(data__path="drawn", data__max_events=5, objective__ranking=[{"rule": r} for r in rules])
    save_config(config, folder / "config.yaml")
    return CliRunner().invoke(app, ["--config", str(folder / "config.yaml"), *options])


def test_each_shape_is_measured_in_every_way_and_one_value_changes_at_a_time(tmp_path: Path) -> None:
    shapes = ["--batch-users=1", "--batch-users=3", "--events=5", "--events=2", "--candidates=10", "--items=40"]
    result = run(tmp_path, *shapes, "--clients=2", "--repeats=4", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    found = [(line["users"], line["events"], line["way"]) for line in report["calls"]]
    ways = ["two passes", "cold", "+ 1 event", "kept"]
    assert found == [(*shape, way) for shape in ((1, 5), (3, 5), (1, 2)) for way in ways]
    assert [(line["clients"], line["way"]) for line in report["http"]] == [(2, "cold"), (2, "kept")]
    for line in report["calls"] + report["http"]:
        assert line["cpu_ms"] > 0
        assert 0 < line["p50_ms"] <= line["p95_ms"] <= line["p99_ms"]


def test_a_table_has_a_line_for_each_way(tmp_path: Path) -> None:
    result = run(tmp_path, "--batch-users=1", "--candidates=10", "--items=40", "--clients=0", "--repeats=2")
    assert result.exit_code == 0, result.output
    assert "Over HTTP" not in result.stdout
    ways = ("two passes", "cold", "+ 1 event", "kept")
    lines = [line.strip() for line in result.stdout.splitlines() if any(way in line for way in ways)]
    assert len(lines) == len(ways)
    assert lines[0].split()[:4] == ["1", "5", "10", "40"]
    assert all(len(line.removeprefix(way).split()) == 5 for way, line in zip(ways[1:], lines[1:], strict=True))


def test_what_can_not_be_drawn_is_refused(tmp_path: Path) -> None:
    refused = run(tmp_path, "--clients=0", "--repeats=1", rules=["clicks >= 1"])
    assert "draws ratings of 1 to 5 alone" in str(refused.exception)


def test_cpu_time_is_shared_among_requests_and_wall_time_is_that_of_calls() -> None:
    times = Times.of([0.1] * 98 + [0.4, 1.2], cpu=4.0, requests=400, wall=20.0)
    assert times.cpu_ms == pytest.approx(10)
    assert (times.p50_ms, times.p95_ms) == pytest.approx((100, 100))
    assert 400 < times.p99_ms < 1200
    assert times.per_second == pytest.approx(20)
