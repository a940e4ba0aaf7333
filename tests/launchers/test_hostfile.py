"""launchers/hostfile.sh: several hosts, over ssh from one of them or started on each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.launchers.shell import option, shown, stand_in, start

HOSTFILE = "launchers/hostfile.sh"
ARGUMENTS = ["--config", "configs/demo.yaml", "--run", "runs/x"]
GLOO = {"GLOO_SOCKET_IFNAME": "eth0"}


@pytest.fixture
def hosts(tmp_path: Path) -> str:
    return write(tmp_path, "# two racks\nnode-a slots=4\n\nnode-b\tslots=4\n")


def write(folder: Path, text: str) -> str:
    (folder / "hosts").write_text(text)
    return str(folder / "hosts")


def test_over_ssh_the_first_host_is_where_all_meet(programs: Path, hosts: str) -> None:
    (words,) = shown(start([HOSTFILE, *ARGUMENTS], programs=programs, HOSTFILE=hosts))
    assert words[words.index("--module") :] == ["--module", "unigrf_dist.train", *ARGUMENTS]
    assert option(words, "--hostfile") == hosts
    assert option(words, "--master_addr") == "node-a"
    assert option(words, "--master_port") == "29500"
    assert "--no_ssh" not in words


def test_by_itself_a_host_says_which_one_it_is(programs: Path, hosts: str) -> None:
    told = {"MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "4321", "NODE_RANK": "1", **GLOO}
    (words,) = shown(start([HOSTFILE, *ARGUMENTS], programs=programs, HOSTFILE=hosts, **told))
    assert words[words.index("--module") :] == ["--module", "unigrf_dist.train", *ARGUMENTS]
    assert "--no_ssh" in words[: words.index("--module")]
    assert [option(words, f"--{name}") for name in ("node_rank", "master_addr", "master_port")] == [
        "1",
        "192.0.2.1",
        "4321",
    ]


def test_over_ssh_the_other_hosts_get_the_network_settings(programs: Path, hosts: str, tmp_path: Path) -> None:
    """DeepSpeed itself runs, up to pdsh: what it would type on the other hosts is what counts."""
    (programs.parent / ".deepspeed_env").write_text("NCCL_IB_HCA=mlx5\n")
    stand_in(programs, "ssh", "exit 0")
    stand_in(programs, "pdsh", 'printf "%s\\n" "$*"')
    done = start(
        [HOSTFILE, *ARGUMENTS],
        programs=programs,
        dry_run=False,
        HOSTFILE=hosts,
        NCCL_DEBUG="WARN",
        OMP_NUM_THREADS="7",
        **GLOO,
    )
    assert done.returncode == 0, done.stderr
    (typed,) = [line for line in done.stdout.splitlines() if "deepspeed.launcher.launch" in line]
    assert "-w node-a,node-b" in typed
    for setting in ("GLOO_SOCKET_IFNAME=eth0", "NCCL_DEBUG=WARN", "NCCL_IB_HCA=mlx5", "OMP_NUM_THREADS=7"):
        assert f"export {setting};" in typed
    assert typed.endswith("unigrf_dist.train " + " ".join(ARGUMENTS))


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "127.0.1.1", "::1"])
@pytest.mark.parametrize("how", [{}, {"NODE_RANK": "0"}, {"NODE_RANK": "1"}], ids=["ssh", "first", "second"])
def test_several_hosts_can_not_meet_at_a_loopback_address(
    programs: Path, hosts: str, address: str, how: dict[str, str]
) -> None:
    done = start([HOSTFILE, *ARGUMENTS], programs=programs, HOSTFILE=hosts, MASTER_ADDR=address, **how, **GLOO)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: MASTER_ADDR={address}: each of the 2 hosts would wait for itself; "
        "set it to the address of node-a\n"
    )


def test_one_host_may_meet_itself(programs: Path, tmp_path: Path) -> None:
    alone = write(tmp_path, "localhost slots=2\n")
    (words,) = shown(start([HOSTFILE, *ARGUMENTS], programs=programs, HOSTFILE=alone, NODE_RANK="0"))
    assert option(words, "--master_addr") == "localhost"


def test_a_loopback_host_among_several_is_refused(programs: Path, tmp_path: Path) -> None:
    wrong = write(tmp_path, "node-a slots=2\nlocalhost slots=2\n")
    done = start([HOSTFILE, *ARGUMENTS], programs=programs, HOSTFILE=wrong)
    assert done.returncode == 2
    assert "localhost means another host on each of the 2 hosts" in done.stderr


def test_a_name_that_leads_a_host_to_itself_is_refused(programs: Path, hosts: str) -> None:
    # Debian writes a host's own name into /etc/hosts with 127.0.1.1; copied to another host it misleads.
    stand_in(programs, "getent", 'echo "127.0.1.1 STREAM $2"')
    done = start([HOSTFILE, *ARGUMENTS], programs=programs, HOSTFILE=hosts, NODE_RANK="1", **GLOO)
    assert done.returncode == 2
    assert "MASTER_ADDR=node-a: is a loopback address on this host" in done.stderr


def test_gloo_is_not_left_to_offer_a_loopback_address(programs: Path, hosts: str) -> None:
    stand_in(programs, "getent", 'echo "127.0.1.1 STREAM $2"')
    done = start([HOSTFILE, *ARGUMENTS], programs=programs, HOSTFILE=hosts, NODE_RANK="0")
    assert done.returncode == 2
    assert "set GLOO_SOCKET_IFNAME" in done.stderr


def test_a_name_not_known_yet_is_waited_for(programs: Path, hosts: str) -> None:
    stand_in(programs, "getent", "exit 2")
    shown(start([HOSTFILE, *ARGUMENTS], programs=programs, HOSTFILE=hosts, NODE_RANK="1"))


@pytest.mark.parametrize(
    "text", ["node-a\n", "node-a slots=\n", "node-a slots=0\n", "node-a slots=2 node-b slots=2\n"]
)
def test_a_wrong_entry_is_named(programs: Path, tmp_path: Path, text: str) -> None:
    wrong = write(tmp_path, "# hosts\nnode-x slots=1\n" + text)
    done = start([HOSTFILE, *ARGUMENTS], programs=programs, HOSTFILE=wrong)
    assert done.returncode == 2
    assert f'entry 2 is "{text.strip()}", must be like "node-a slots=8"' in done.stderr


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "HOSTFILE is not set"),
        ({"HOSTFILE": "nowhere"}, "nowhere: no such hostfile"),
        ({"HOSTFILE": "hosts", "NODE_RANK": "2"}, "NODE_RANK=2: must be 0 to 1, a line of hosts"),
        ({"HOSTFILE": "hosts", "NODE_RANK": "-1"}, "NODE_RANK=-1: must be 0 to 1, a line of hosts"),
        ({"HOSTFILE": "empty"}, "empty: names no host"),
    ],
)
def test_a_wrong_setting_is_named(
    programs: Path, hosts: str, tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    (tmp_path / "empty").write_text("# none yet\n")
    done = start([HOSTFILE, *ARGUMENTS], programs=programs, **environment)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")


def test_ssh_without_pdsh_tells_the_other_way(programs: Path, hosts: str) -> None:
    for name in ("bash", "dirname", "grep", "head", "cut", "env"):
        (programs / name).symlink_to(str(shutil.which(name)))
    done = start(
        ["/bin/bash", HOSTFILE, *ARGUMENTS], programs=programs, dry_run=False, HOSTFILE=hosts, PATH=str(programs)
    )
    assert done.returncode == 2
    assert (
        "no pdsh on this host: apt-get install pdsh, or start every host by itself with NODE_RANK" in done.stderr
    )
