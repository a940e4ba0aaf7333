"""A few faults done to real trainings; ``unigrf chaos`` does all of them, many times over."""

from __future__ import annotations

import random

import pytest

from unigrf_dist.chaos.catalogue import FAULTS
from unigrf_dist.chaos.disks import mounts_allowed
from unigrf_dist.chaos.flips import flip_bits, read_checkpoint, read_data
from unigrf_dist.chaos.training import make_workshop
from unigrf_dist.chaos.workshop import REFERENCE, Outcome, Workshop
from unigrf_dist.train.checkpoints.folders import LATEST, CheckpointFolders


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("faults")
    return Workshop(make_workshop(folder, seed=3), folder, random.Random(3))


@pytest.mark.parametrize("fault", ["kill-while-saving", "stop-rank", "interrupt"])
def test_a_fault_comes_to_what_is_promised(work: Workshop, fault: str) -> None:
    outcome = FAULTS[fault](work)
    assert outcome.as_promised, outcome


def test_a_full_disk_ends_no_training(work: Workshop) -> None:
    if not mounts_allowed():
        pytest.skip("no mount namespace can be made here, for a small disk")
    outcome = FAULTS["full-disk"](work)
    assert outcome.as_promised, outcome


def test_a_lost_rank_is_left_out_and_every_user_is_still_trained_once(work: Workshop) -> None:
    outcome = FAULTS["elastic"](work)
    assert outcome.as_promised, outcome


def test_every_flipped_bit_is_told_or_changes_nothing(work: Workshop) -> None:
    work.reference()
    checkpoint = CheckpointFolders(work.folder / REFERENCE).resolve(LATEST)
    scratch = work.folder / "flipped"
    assert flip_bits(checkpoint, scratch, read_checkpoint, flips=60, seed=1) == (60, [])
    assert flip_bits(work.folder / "data", scratch, read_data, flips=60, seed=2) == (60, [])


def test_an_outcome_counts_only_in_its_time() -> None:
    in_time, late = (Outcome("stop one rank", True, seconds, "", promised_seconds=40) for seconds in (39.9, 40.1))
    assert (in_time.passed, late.passed) == (True, False)
    assert Outcome("kill one rank", True, 1e6, "").passed
    assert not Outcome("kill one rank", False, 1.0, "", promised_seconds=40).passed
