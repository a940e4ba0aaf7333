"""The session on a GPU: what it runs is bounded, and a part that fails costs its own result alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.gpu.parts import Part, parts
from tools.gpu.session import run_session, table


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_all_parts_together_end_within_nine_minutes(tmp_path: Path) -> None:
    names = [part.name for part in parts(tmp_path, rehearsal=False)]
    assert names[1:4] == ["tests, telling", "tests, all", "compute-sanitizer"]
    assert sum(part.seconds for part in parts(tmp_path, rehearsal=False)) < 540
    assert [part.name for part in parts(tmp_path, rehearsal=True)] == names


def test_tests_that_are_named_exist(tmp_path: Path) -> None:
    for rehearsal in (False, True):
        words = [word for part in parts(tmp_path, rehearsal=rehearsal) for word in part.command]
        files = {word.partition("::")[0] for word in words if word.startswith(("tests/", "configs/"))}
        assert files
        for word in words:
            path, _, name = word.partition("::")
            if path in files and name:
                assert f"def {name.partition('[')[0]}(" in Path(path).read_text(encoding="utf-8"), word
        assert all(Path(file).exists() for file in files)


def test_every_part_survives_the_one_before(tmp_path: Path) -> None:
    half = tmp_path / "half.json"
    half.write_text("{}")  # of an earlier session
    done = tmp_path / "done.json"
    records = run_session(
        [
            Part("missing", ["no-such-program"], 5),
            Part("broken", python("print('what happened'); raise SystemExit(3)"), 20),
            Part("skipped", python("raise AssertionError"), 5, skip="not installed"),
            Part("slow", python("import time; time.sleep(60)"), 1, half),
            Part("good", python(f"import pathlib; pathlib.Path({str(done)!r}).write_text('[1]')"), 20, done),
        ],
        tmp_path,
    )
    statuses = [record["status"] for record in records]
    assert statuses[0].startswith("not started")
    assert statuses[1:] == ["failed with 3", "skipped", "stopped after 1 s", "passed"]
    assert records[1]["last_line"] == "what happened"
    assert "result" not in records[3]
    assert records[4]["result"] == [1]
    assert json.loads((tmp_path / "session.json").read_text())["parts"] == records


def test_table_has_a_line_for_each_part() -> None:
    training = {"milliseconds_per_step": 12.34, "mfu": 0.125, "host_waits_per_step": 2.0}
    best = {"refusal": "", "fraction": 0.5, "operator": "joint_loss", "shape": "8 rows"}
    bench = {"results": [best]}
    lines = table(
        [
            {"name": "tests", "status": "passed", "seconds": 3.21, "last_line": "9 passed"},
            {"name": "training", "status": "passed", "seconds": 30.0, "last_line": "", "result": training},
            {
                "name": "benchmark",
                "status": "passed",
                "seconds": 9.0,
                "last_line": "",
                "result": bench,
            },
        ]
    ).splitlines()
    assert lines[0].split() == ["tests", "passed", "3.2", "s", "9", "passed"]
    assert lines[1].endswith("12.3 ms per step, 12.5% of the measured GEMM, 2 waits of the host")
    assert lines[2].endswith("1 lines; best 50% of the ceiling, joint_loss 8 rows")
