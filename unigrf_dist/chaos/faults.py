"""Faults of processes and folders, each done once to a small training; what it came to, and how long it took."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from unigrf_dist.chaos.training import CHECKPOINT_STEPS, STEPS, last_words, log_of
from unigrf_dist.chaos.weights import is_equal, weights_at
from unigrf_dist.chaos.workshop import ROUNDING, Outcome, Workshop

_STOPPED = 130
_TIMEOUT_SECONDS = 30
# Steps on each number of ranks before the next kill.
_SHARE = 12


def kill_rank(work: Workshop) -> Outcome:
    """SIGKILL to one of two ranks: the other ends at once and names it; a resume is bit-equal."""
    training = work.under_way()
    began = time.monotonic()
    work.draws.choice(training.ranks()).kill()
    training.wait(60)
    return work.resumed_equal("kill one rank", training.run, time.monotonic() - began)


def kill_all(work: Workshop) -> Outcome:
    """SIGKILL to command, launcher and ranks at once; a resume is bit-equal."""
    training = work.under_way()
    began = time.monotonic()
    training.kill_all()
    return work.resumed_equal("kill everything", training.run, time.monotonic() - began)


def kill_while_saving(work: Workshop) -> Outcome:
    """SIGKILL to everything while a checkpoint is written; a resume is bit-equal."""
    training = work.under_way()
    began = time.monotonic()
    while training.process.poll() is None and not list((training.run / "checkpoints").glob("*.partial")):
        time.sleep(0.001)
    training.kill_all()
    return work.resumed_equal("kill while saving", training.run, time.monotonic() - began)


def kill_launcher(work: Workshop) -> Outcome:
    """SIGKILL to the command alone: its ranks end with it, and a resume is bit-equal."""
    training = work.under_way()
    ranks, began = training.ranks(), time.monotonic()
    training.process.kill()
    training.process.wait()
    while any(rank.is_running() for rank in ranks) and time.monotonic() - began < 30:
        time.sleep(0.05)
    seconds = time.monotonic() - began
    if any(rank.is_running() for rank in ranks):
        return Outcome("kill the launcher", False, seconds, "its ranks train on")
    return work.resumed_equal("kill the launcher", training.run, seconds)


def change_ranks(work: Workshop) -> Outcome:
    """Kills, each followed by a resume on another number of ranks: 2, 1, 4, 3; every user once per epoch."""
    name = "kills on 2, 1, 4, 3 ranks"
    work.reference()
    began, training = time.monotonic(), work.train(work.new_run(), 2)
    run = training.run
    for ranks in (1, 4, 3):
        training.wait_for_step(training.steps + work.draws.randint(1, _SHARE))
        training.kill_all()
        try:
            training, checkpoint = work.resumed(run, ranks)
        except RuntimeError as error:
            return Outcome(name, False, time.monotonic() - began, str(error))
    training.kill_all()
    # A user left out or trained twice moves weights by some 1e-2 of their size; another order of sums by 1e-6.
    difference = work.difference(run, checkpoint)
    told = f"every user once per epoch: weights differ by {difference:.1e} from an undisturbed run at {checkpoint}"
    return Outcome(name, difference < ROUNDING, time.monotonic() - began, told)


def stop_rank(work: Workshop) -> Outcome:
    """SIGSTOP to a rank: within the timeout plus 10 s the run ends, and says who is missing."""
    name = "stop one rank (SIGSTOP)"
    training = work.begun("--set", f"train.timeout_seconds={_TIMEOUT_SECONDS}")
    missing, began = work.draws.choice([0, 1]), time.monotonic()
    training.ranks()[missing].suspend()
    status, seconds = training.wait(_TIMEOUT_SECONDS + 40), time.monotonic() - began
    named = [line for line in training.errors() if f"rank {missing}" in line.split("error: ")[-1]]
    stacks = list((training.run / "stacks").glob("rank-*.txt"))
    passed = status != 0 and bool(named) and bool(stacks)
    told = named[0] if named else last_words(training)
    return Outcome(name, passed, seconds, told, promised_seconds=_TIMEOUT_SECONDS + 10)


def interrupt(work: Workshop) -> Outcome:
    """Ctrl-C: one line, saved, status 130; a resume is bit-equal."""
    training, name = work.begun(), "Ctrl-C"
    began = time.monotonic()
    training.signal(signal.SIGINT)
    status, seconds = training.wait(60), time.monotonic() - began
    if status != _STOPPED or training.errors() or "asked to stop: saved" not in training.said():
        return Outcome(name, False, seconds, f"status {status}: {last_words(training)}")
    return work.resumed_equal(name, training.run, seconds)


def interrupt_twice(work: Workshop) -> Outcome:
    """Ctrl-C twice: ends at once with status 130."""
    training, name = work.begun(), "Ctrl-C twice"
    began = time.monotonic()
    for rank in training.ranks():
        rank.suspend()  # so that the first one can't be heeded
    training.signal(signal.SIGINT)
    time.sleep(0.3)
    training.signal(signal.SIGINT)
    status, seconds = training.wait(30), time.monotonic() - began
    return Outcome(name, status == _STOPPED, seconds, f"status {status}", promised_seconds=5)


def unwritable_folder(work: Workshop) -> Outcome:
    """The folder of the checkpoints can't be written: training goes on, with a warning for each attempt."""
    run, name = work.new_run(), "no room for checkpoints"
    training = work.train(run, 2)
    training.wait_for_step(CHECKPOINT_STEPS + 2)
    checkpoints, aside = run / "checkpoints", run / "aside"
    while not (checkpoints / "latest").exists() and training.process.poll() is None:
        time.sleep(0.01)
    began = time.monotonic()
    # For root nothing is read-only: a file where the folder was refuses every write.
    checkpoints.rename(aside)
    checkpoints.write_text("")
    training.wait_for_step(3 * CHECKPOINT_STEPS)
    checkpoints.unlink()
    for made in aside.glob("*.partial"):
        shutil.rmtree(made)
    aside.rename(checkpoints)
    status, seconds = training.wait(), time.monotonic() - began
    warned = [record for record in log_of(run) if record["kind"] == "warning"]
    passed = status == 0 and bool(warned) and is_equal(work.reference(), weights_at(run))
    return Outcome(name, passed, seconds, warned[0]["text"] if warned else last_words(training))


def restart_elastic(work: Workshop) -> Outcome:
    """A rank is lost under --max-restarts --elastic: the run goes on by itself on the one that is left."""
    run, name = work.new_run(), "lose a rank, --elastic"
    training = work.train(run, 2, "--max-restarts", "1", "--elastic")
    training.wait_for_step(work.draws.randint(8, STEPS // 2))
    at, began = training.steps, time.monotonic()
    training.ranks()[1].kill()
    headers = len([record for record in log_of(run) if record["kind"] == "header"])
    while training.process.poll() is None and not _trains_again(run, headers):
        time.sleep(0.05)
    seconds, status = time.monotonic() - began, training.wait()
    difference = work.difference(run) if status == 0 else float("inf")
    told = f"killed after step {at}, trained again after {seconds:.0f} s; weights differ by {difference:.1e}"
    told = told if status == 0 else last_words(training)
    return Outcome(name, difference < ROUNDING, seconds, told, promised_seconds=30)


def _trains_again(run: Path, headers: int) -> bool:
    kinds = [record["kind"] for record in log_of(run)]
    starts = [index for index, kind in enumerate(kinds) if kind == "header"]
    return len(starts) > headers and "step" in kinds[starts[-1] :]
