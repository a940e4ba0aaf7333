"""What became of the mutants: kept in a file, one line each, so that a run resumes; and as a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from tools.mutants.operators import Mutant

Status = Literal["killed", "timeout", "survived", "invalid"]
"""Failed by a test; failed by its time; noticed by none; or no Python, or no test ran."""


class Result(NamedTuple):
    """What became of a mutant.

    Attributes:
        name: name of the mutant.
        digest: digest of the mutated file and of its tests; a result holds while they stay as they are.
        status: outcome.
        seconds: time that the tests took.
    """

    name: str
    digest: str
    status: Status
    seconds: float


class ResultFile:
    """JSON lines; the last line about a mutant counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._results: dict[tuple[str, str], Result] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._keep(Result(**json.loads(line)))

    def _keep(self, result: Result) -> None:
        self._results[result.name, result.digest] = result

    def get(self, name: str, digest: str) -> Result | None:
        """The result of an earlier run for the same code and tests."""
        return self._results.get((name, digest))

    def add(self, result: Result) -> None:
        """Keep ``result``, on disk too."""
        self._keep(result)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result._asdict()) + "\n")


def unexplained(
    outcomes: Iterable[tuple[Mutant, Result]], equivalents: Mapping[str, str]
) -> list[tuple[Mutant, Result]]:
    """The survivors that nobody has judged to be equivalent."""
    return [(m, r) for m, r in outcomes if r.status == "survived" and m.name not in equivalents]


def table(outcomes: Iterable[tuple[Mutant, Result]], equivalents: Mapping[str, str]) -> str:
    """Counts by module, the score, and every survivor.

    The score is the share of killed mutants, those by time included, among all but the equivalent and the invalid.
    """
    outcomes = list(outcomes)
    counts: dict[str, Counter[str]] = {}
    for mutant, result in outcomes:
        is_equivalent = result.status == "survived" and mutant.name in equivalents
        for path in (mutant.path, "all"):
            counts.setdefault(path, Counter())["equivalent" if is_equivalent else result.status] += 1
    columns = ("killed", "timeout", "survived", "equivalent", "invalid")
    width = max((len(path) for path in counts), default=0)
    lines = [" ".join([f"{'':{width}}", *(f"{name:>10}" for name in columns), f"{'score':>7}"])]
    for path in [*sorted(counts.keys() - {"all"}), *(["all"] if counts else [])]:
        count = counts[path]
        killed = count["killed"] + count["timeout"]
        judged = killed + count["survived"]
        score = f"{killed / judged:7.1%}" if judged else f"{'-':>7}"
        lines.append(" ".join([f"{path:{width}}", *(f"{count[name]:>10}" for name in columns), score]))
    survivors = unexplained(outcomes, equivalents)
    lines += ["", "survivors:" if survivors else "no survivors"]
    lines += [f"  {m.path}:{m.line}: {m.operator}: {m.before} -> {m.after}" for m, _ in survivors]
    return "\n".join(lines)
