"""launchers/local.sh: the ranks of one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launchers.shell import option, shown, stand_in, start

LOCAL = "launchers/local.sh"
ARGUMENTS = ["--config", "configs/my run.yaml", "--run", "runs/x", "--set", "train.seed=3", "--resume"]


def test_the_training_gets_its_arguments_word_for_word(programs: Path) -> None:
    (words,) = shown(start([LOCAL, *ARGUMENTS], programs=programs, RANKS="2"))
    assert words[0] == "deepspeed"
    assert words[words.index("--module") :] == ["--module", "unigrf_dist.train", *ARGUMENTS]
    assert option(words, "--num_gpus") == "2"
    assert option(words, "--master_addr") == "127.0.0.1"


def test_without_a_gpu_one_rank_starts(programs: Path) -> None:
    (words,) = shown(start([LOCAL, *ARGUMENTS], programs=programs))
    assert option(words, "--num_gpus") == "1"


def test_every_gpu_gets_a_rank(programs: Path) -> None:
    stand_in(programs, "nvidia-smi", 'printf "GPU 0: a card\\nGPU 1: a card\\nGPU 2: a card\\n"')
    (words,) = shown(start([LOCAL, *ARGUMENTS], programs=programs))
    assert option(words, "--num_gpus") == "3"


def test_two_runs_meet_at_ports_of_their_own_unless_told(programs: Path) -> None:
    ports = {option(shown(start([LOCAL, *ARGUMENTS], programs=programs))[0], "--master_port") for _ in range(2)}
    assert len(ports) == 2
    (told,) = shown(start([LOCAL, *ARGUMENTS], programs=programs, MASTER_PORT="4321"))
    assert option(told, "--master_port") == "4321"


def test_ranks_share_the_cores_and_stay_on_the_machine(programs: Path, own_deepspeed: None) -> None:
    done = start([LOCAL, *ARGUMENTS], programs=programs, dry_run=False, RANKS="2")
    assert done.stdout.split() == ["threads", "2", "device", "cpu", "interface", "lo"], done.stderr


def test_the_callers_own_settings_stay(programs: Path, own_deepspeed: None) -> None:
    settings = {"OMP_NUM_THREADS": "3", "GLOO_SOCKET_IFNAME": "eth9", "DS_ACCELERATOR": "xpu"}
    done = start([LOCAL, *ARGUMENTS], programs=programs, dry_run=False, **settings)
    assert done.stdout.split() == ["threads", "3", "device", "xpu", "interface", "eth9"], done.stderr


@pytest.fixture
def own_deepspeed(programs: Path) -> None:
    script = 'echo "threads $OMP_NUM_THREADS device $DS_ACCELERATOR interface $GLOO_SOCKET_IFNAME"'
    stand_in(programs, "deepspeed", script)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANKS": "0"}, "RANKS=0: must be a number of processes, 1 or more"),
        ({"RANKS": "two"}, "RANKS=two: must be a number of processes, 1 or more"),
    ],
)
def test_a_wrong_number_of_ranks_is_refused(programs: Path, environment: dict[str, str], message: str) -> None:
    done = start([LOCAL, *ARGUMENTS], programs=programs, **environment)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")


def test_more_ranks_than_gpus_are_refused(programs: Path) -> None:
    stand_in(programs, "nvidia-smi", 'echo "GPU 0: a card"')
    done = start([LOCAL, *ARGUMENTS], programs=programs, RANKS="2")
    assert (done.returncode, done.stderr) == (2, "error: RANKS=2: this machine has 1 GPUs, one for each rank\n")


def test_no_arguments_are_refused(programs: Path) -> None:
    done = start([LOCAL], programs=programs)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no arguments: give those of the training")
