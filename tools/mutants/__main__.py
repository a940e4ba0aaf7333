"""``python -m tools.mutants``: see the package."""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from tools.mutants import results, targets, workshop
from tools.mutants.operators import Mutant

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "mutants" / "results.jsonl"
# A mutant may take this many times what the code takes, and a start that a busy machine delays.
_LIMIT_FACTOR, _LIMIT_SECONDS = 4.0, 30.0
_POLL_SECONDS = 0.02


class Job:
    """A mutant with what is needed to try it."""

    def __init__(self, mutant: Mutant, tests: tuple[str, ...], source: str, digest: str) -> None:
        self.mutant, self.tests, self.source, self.digest = mutant, tests, source, digest


def plan(root: Path, only: str = "", sample: int | None = None, seed: int = 0) -> list[Job]:
    """The mutants to try, in the order of the modules; a sample is the same for the same code and seed."""
    jobs = []
    for path, tests in targets.modules(root, only).items():
        source = (root / path).read_text(encoding="utf-8")
        digest = _digest(root, source, tests)
        jobs += [Job(mutant, tests, mutant.write(source), digest) for mutant in targets.mutants_of(root, path)]
    if sample is None or sample >= len(jobs):
        return jobs
    chosen = sorted(random.Random(seed).sample(range(len(jobs)), sample))
    return [jobs[index] for index in chosen]


def _digest(root: Path, source: str, tests: Sequence[str]) -> str:
    texts = [source]
    for name in tests:
        files = sorted((root / name).rglob("*.py")) if (root / name).is_dir() else [root / name]
        texts += [file.read_text(encoding="utf-8") for file in files]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def limits(bench: workshop.Bench, jobs: Sequence[Job]) -> dict[tuple[str, ...], float]:
    """Seconds that each set of tests may take, from a run on the code as it is.

    Raises:
        SystemExit: the tests fail without a mutant.
    """
    found: dict[tuple[str, ...], float] = {}
    for job in jobs:
        if job.tests in found:
            continue
        path = job.mutant.path
        bench.start(path, (bench.tree / path).read_text(encoding="utf-8"), job.tests, 3600.0)
        status, seconds = _wait(bench)
        if status != 0:
            sys.exit(
                f"error: {' '.join(job.tests)} fail without a mutant:\n{bench.log.read_text(errors='replace')}"
            )
        found[job.tests] = _LIMIT_SECONDS + _LIMIT_FACTOR * seconds
    return found


def _wait(bench: workshop.Bench) -> tuple[int | None, float]:
    while (done := bench.poll()) is None:
        time.sleep(_POLL_SECONDS)
    return done


def run(jobs: Sequence[Job], benches: Sequence[workshop.Bench]) -> Iterator[results.Result]:
    """Try all mutants, as many at a time as there are benches; yields each as it ends."""
    allowed = limits(benches[0], jobs)
    waiting = list(reversed(jobs))
    running: dict[int, Job] = {}
    while waiting or running:
        for index, bench in enumerate(benches):
            if bench.is_busy and (done := bench.poll()) is not None:
                job, (status, seconds) = running.pop(index), done
                outcome = cast(results.Status, workshop.verdict(status))
                yield results.Result(job.mutant.name, job.digest, outcome, round(seconds, 2))
            if not bench.is_busy and waiting:
                running[index] = job = waiting.pop()
                bench.start(job.mutant.path, job.source, job.tests, allowed[job.tests])
        time.sleep(_POLL_SECONDS)


def is_python(source: str) -> bool:
    """Whether ``source`` compiles; what does not is no mistake that a test could be blamed for."""
    try:
        compile(source, "<mutant>", "exec")
    except SyntaxError:
        return False
    return True


def main(words: Sequence[str] | None = None) -> int:
    """Run, and print the table. Returns 1 if a mutant survives that is not known to be equivalent."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description="Mutation run.")
    parser.add_argument("--only", default="", metavar="PATH", help="modules whose path begins so")
    parser.add_argument("--sample", type=int, metavar="N", help="this many, drawn by chance")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants side by side")
    parser.add_argument("--list", action="store_true", help="list the mutants and end")
    options = parser.parse_args(words)
    jobs = plan(ROOT, options.only, options.sample, options.seed)
    if not jobs:
        sys.exit(f"error: --only {options.only}: no module to mutate; they are in tools/mutants/targets.py")
    if options.list:
        print("\n".join(f"{job.mutant.path}:{job.mutant.line}: {job.mutant.name}" for job in jobs))
        return 0
    outcomes = _outcomes(jobs, options.jobs)
    print(results.table(outcomes, targets.EQUIVALENT))
    return 1 if results.unexplained(outcomes, targets.EQUIVALENT) else 0


def _outcomes(jobs: Sequence[Job], num_benches: int) -> list[tuple[Mutant, results.Result]]:
    """Results of all jobs, those of earlier runs included."""
    store = results.ResultFile(RESULTS)
    for job in jobs:
        if store.get(job.mutant.name, job.digest) is None and not is_python(job.source):
            store.add(results.Result(job.mutant.name, job.digest, "invalid", 0.0))
    todo = [job for job in jobs if store.get(job.mutant.name, job.digest) is None]
    print(f"{len(jobs)} mutants, {len(todo)} to try, {num_benches} at a time", flush=True)
    if todo:
        workshop.warm_up(ROOT)
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            benches = [workshop.Bench(ROOT, Path(folder) / str(index)) for index in range(num_benches)]
            for number, result in enumerate(run(todo, benches), start=1):
                store.add(result)
                print(f"{number}/{len(todo)} {result.status} {result.seconds:.1f} s {result.name}", flush=True)
    found = [(job.mutant, store.get(job.mutant.name, job.digest)) for job in jobs]
    return [(mutant, result) for mutant, result in found if result is not None]


if __name__ == "__main__":
    sys.exit(main())
