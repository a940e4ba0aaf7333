"""launchers/slurm.sbatch: one deepspeed launcher per node of the job, each knowing its place."""

from __future__ import annotations

from pathlib import Path

from tests.launchers.shell import option, shown, stand_in, start

SBATCH = "launchers/slurm.sbatch"
ARGUMENTS = ["--config", "configs/demo.yaml", "--run", "runs/a b"]
# As Slurm does it: the batch script runs on the first node, srun the command after its options on each.
SRUN = """
while [[ $1 == --* ]]; do shift; done
for node in 0 1 2; do SLURM_NODEID=$node "$@"; done
"""


def submit(programs: Path, **environment: str):
    stand_in(programs, "scontrol", 'echo "$*" >&2; printf "gpu-[3]\\n" | sed "s/.*/gpu-3\\ngpu-4\\ngpu-7/"')
    stand_in(programs, "srun", SRUN)
    job = {"SLURM_SUBMIT_DIR": str(programs.parent), "SLURM_JOB_ID": "41007", "SLURM_JOB_NODELIST": "gpu-[3-4,7]"}
    return start([SBATCH, *ARGUMENTS], programs=programs, **{**job, **environment})


def test_every_node_starts_its_ranks_and_meets_at_the_first(programs: Path) -> None:
    done = submit(programs, SLURM_GPUS_ON_NODE="8")
    nodes = shown(done)
    assert "show hostnames gpu-[3-4,7]" in done.stderr
    assert [option(words, "--node_rank") for words in nodes] == ["0", "1", "2"]
    for words in nodes:
        assert "--no_ssh" in words
        assert option(words, "--master_addr") == "gpu-3"
        assert words[words.index("--module") :] == ["--module", "unigrf_dist.train", *ARGUMENTS]
        hosts = (programs.parent / option(words, "--hostfile")).read_text()
        assert hosts == "gpu-3 slots=8\ngpu-4 slots=8\ngpu-7 slots=8\n"


def test_jobs_on_one_node_do_not_meet(programs: Path) -> None:
    ports = {option(words, "--master_port") for words in shown(submit(programs))}
    others = {option(words, "--master_port") for words in shown(submit(programs, SLURM_JOB_ID="41008"))}
    assert (ports, others) == ({"11007"}, {"11008"})  # 10000 + 41007 % 20000


def test_ranks_per_node_can_be_told(programs: Path) -> None:
    shown(submit(programs, RANKS_PER_NODE="3"))
    assert (programs.parent / "build" / "hosts.41007").read_text().splitlines()[0] == "gpu-3 slots=3"


def test_a_node_that_misses_stops_the_job(programs: Path) -> None:
    done = submit(programs, MASTER_ADDR="localhost")
    assert done.returncode == 2
    assert "MASTER_ADDR=localhost: each of the 3 hosts would wait for itself" in done.stderr


def test_submission_from_elsewhere_is_refused(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    done = submit(programs, SLURM_SUBMIT_DIR=str(tmp_path / "elsewhere"))
    assert done.returncode == 2
    assert "has no launchers/hostfile.sh: submit from the repository's root" in done.stderr


def test_a_run_outside_slurm_is_refused(programs: Path) -> None:
    done = start([SBATCH, *ARGUMENTS], programs=programs)
    assert done.returncode != 0
    assert "submit this file with sbatch" in done.stderr
