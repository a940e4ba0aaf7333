"""The mutation run on a small tree: what is killed, what survives, what is kept for the next run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.mutants import results, targets, workshop
from tools.mutants.__main__ import is_python, plan
from tools.mutants.operators import Mutant

ROOT = Path(__file__).resolve().parents[2]
TOY = """
def countdown(n):
    while n > 0:
        n -= 1
    return n


def largest(values, floor=0):
    unused = 1 + 2
    return max(values) if values else floor
"""
TESTS = """
from unigrf_dist.toy import countdown, largest


def test_largest():
    assert (largest([3, 1]), largest([])) == (3, 0)


def test_countdown():
    assert countdown(3) == 0
"""
# The run forks, and this process has threads.
RUN = """
import json, sys
from pathlib import Path
from tools.mutants import __main__ as program, targets, workshop

program._LIMIT_SECONDS = 5.0
root = Path(sys.argv[1])
targets.TARGETS = (targets.Target("unigrf_dist/toy.py", ("tests/test_toy.py",)),)
jobs = program.plan(root)
workshop.warm_up(root, preload=[])
benches = [workshop.Bench(root, root / "benches" / str(index)) for index in range(2)]
done = list(program.run(jobs, benches))
trees = [(bench.tree / "unigrf_dist" / "toy.py").read_text() for bench in benches]
print("RESULT" + json.dumps([{result.name: result.status for result in done}, trees]))
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    for name, text in (
        ("unigrf_dist/__init__.py", ""),
        ("unigrf_dist/toy.py", TOY),
        ("tests/__init__.py", ""),
        ("tests/test_toy.py", TESTS),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(toy: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, str(toy)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=toy,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_mutants_of_a_small_module(toy: Path) -> None:
    ended = run(toy)
    assert ended.returncode == 0, ended.stderr
    statuses, trees = json.loads(ended.stdout.split("RESULT")[1])
    prefix = "unigrf_dist/toy.py::"
    assert statuses[f"{prefix}largest: max(values) -> (min(values))"] == "killed"
    assert statuses[f"{prefix}largest: values -> (not values)"] == "killed"
    assert statuses[f"{prefix}countdown: n > 0 -> (n >= 0)"] == "killed"
    # Counts up for ever.
    assert statuses[f"{prefix}countdown: n -= 1 -> n += 1"] == "timeout"
    # No test can see the value that is not used.
    assert statuses[f"{prefix}largest: 1 + 2 -> (1 - 2)"] == "survived"
    assert trees == [TOY, TOY]
    assert (toy / "unigrf_dist" / "toy.py").read_text() == TOY


def test_tests_that_fail_without_a_mutant_end_the_run(toy: Path) -> None:
    (toy / "tests" / "test_toy.py").write_text("def test_it():\n    assert False\n")
    ended = run(toy)
    assert ended.returncode == 1
    assert "error: tests/test_toy.py fail without a mutant:" in ended.stderr
    assert "assert False" in ended.stderr


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(None, "timeout"), (0, "survived"), (1, "killed"), (2, "killed"), (-11, "killed"), (5, "invalid")],
)
def test_the_outcome_of_an_exit_status(status: int | None, outcome: str) -> None:
    assert workshop.verdict(status) == outcome


def test_a_sample_is_repeatable_and_in_the_order_of_the_code() -> None:
    only = "unigrf_dist/objective/smoothing.py"

    def names(**options: int) -> list[str]:
        return [job.mutant.name for job in plan(ROOT, only, **options)]

    everything = names()
    some = names(sample=10, seed=1)
    assert some == names(sample=10, seed=1) != names(sample=10, seed=2)
    assert len(some) == 10
    assert some == [name for name in everything if name in some]
    assert names(sample=10**6) == everything


def test_results_are_kept_while_code_and_tests_stay(tmp_path: Path) -> None:
    file = tmp_path / "build" / "results.jsonl"
    store = results.ResultFile(file)
    store.add(results.Result("a", "digest", "survived", 1.0))
    store.add(results.Result("a", "digest", "killed", 2.0))
    again = results.ResultFile(file)
    assert again.get("a", "digest") == results.Result("a", "digest", "killed", 2.0)
    assert again.get("a", "another digest") is None
    assert again.get("b", "digest") is None


def test_a_changed_test_makes_a_new_digest(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "TARGETS", (targets.Target("unigrf_dist/toy.py", ("tests",)),))
    before = {job.digest for job in plan(toy)}
    (toy / "tests" / "test_more.py").write_text("def test_more(): ...\n")
    after = {job.digest for job in plan(toy)}
    assert len(before) == len(after) == 1
    assert before != after


def outcome(name: str, status: results.Status, path: str = "m.py") -> tuple[Mutant, results.Result]:
    mutant = Mutant(path, "f", "constant", 7, 0, 1, name, "2", 0)
    return mutant, results.Result(mutant.name, "", status, 0.1)


def test_the_table_counts_equivalents_apart_and_lists_the_survivors() -> None:
    outcomes = [
        outcome("a", "killed"),
        outcome("b", "timeout"),
        outcome("c", "survived"),
        outcome("d", "survived"),
    ]
    outcomes += [outcome("e", "invalid"), outcome("x", "survived", "n.py")]
    equivalents = {outcomes[3][0].name: "says the same"}
    lines = results.table(outcomes, equivalents).splitlines()
    assert lines[1].split() == ["m.py", "1", "1", "1", "1", "1", "66.7%"]
    assert lines[2].split() == ["n.py", "0", "0", "1", "0", "0", "0.0%"]
    assert lines[3].split() == ["all", "1", "1", "2", "1", "1", "50.0%"]
    assert lines[5:] == ["survivors:", "  m.py:7: constant: c -> 2", "  n.py:7: constant: x -> 2"]
    assert len(results.unexplained(outcomes, equivalents)) == 2


def test_what_does_not_compile_is_told_from_what_does() -> None:
    assert is_python("x = 1")
    assert not is_python("x = = 1")


def test_every_module_has_tests_that_exist() -> None:
    found = targets.modules(ROOT)
    assert "unigrf_dist/model/unigrf.py" in found
    assert "unigrf_dist/objective/enhancer/targets.py" in found
    assert "unigrf_dist/train/step.py" in found
    for path, tests in found.items():
        for name in tests:
            assert (ROOT / name).exists(), f"{path}: no {name}"


def test_edits_by_hand_and_equivalents_still_fit_the_code() -> None:
    names = {mutant.name for path in targets.modules(ROOT) for mutant in targets.mutants_of(ROOT, path)}
    assert targets.EQUIVALENT.keys() <= names
    edited = {edit.path for edit in targets.BY_HAND}
    assert edited <= targets.modules(ROOT).keys()
    for edit in targets.BY_HAND:
        source = (ROOT / edit.path).read_text(encoding="utf-8")
        assert is_python(source.replace(edit.before, edit.after))


def test_an_edit_that_no_longer_fits_is_told(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "BY_HAND", (targets.Edit("unigrf_dist/toy.py", "gone", "away"),))
    with pytest.raises(ValueError, match=r"toy\.py has 'gone' 0 times: bring BY_HAND up to date"):
        targets.mutants_of(toy, "unigrf_dist/toy.py")
