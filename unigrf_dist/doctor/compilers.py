"""Compilers: DeepSpeed builds an operator at its first process group, torch.compile one per fused graph."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from unigrf_dist.doctor.check import Check, fail, note, ok

GROUP = "Compilers"
# Headers that generated code includes, and the C++ standard in which torch compiles extensions.
_PROGRAM = "#include <Python.h>\n#include <omp.h>\n#include <concepts>\n"
_LANGUAGE = ("-std=c++20", "-fopenmp", "-fsyntax-only", "-x", "c++", "-")


def check_compilers(*, on_cuda: bool) -> list[Check]:
    """C++ compiler with Python's headers, ninja, nvcc, and locks that an interrupted build left behind."""
    return [_cxx(), _ninja(), _nvcc(on_cuda), *_abandoned_locks()]


def extension_folder() -> Path:
    """Folder in which torch caches compiled operators."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR", Path.home() / ".cache" / "torch_extensions"))


def _cxx() -> Check:
    name = os.environ.get("CXX", "g++")
    path = shutil.which(name)
    if path is None:
        return fail(GROUP, name, "not found", "apt-get install g++")
    headers = sysconfig.get_paths()["include"]
    trial = subprocess.run(
        [path, "-I", headers, *_LANGUAGE], input=_PROGRAM, capture_output=True, text=True, check=False
    )
    if trial.returncode:
        fix = "apt-get install g++ python3-dev (g++ 10 or newer, and the headers of this Python)"
        return fail(GROUP, name, _first_line(trial.stderr), fix)
    return ok(GROUP, name, _first_line(_output(path, "--version")))


def _ninja() -> Check:
    path = shutil.which("ninja")
    if path is None:
        return fail(GROUP, "ninja", "not found", f"{sys.executable} -m pip install ninja")
    return ok(GROUP, "ninja", _first_line(_output(path, "--version")))


def _nvcc(on_cuda: bool) -> Check:
    path = shutil.which("nvcc")
    if path is not None:
        release = [line for line in _output(path, "--version").splitlines() if "release" in line]
        return ok(GROUP, "nvcc", release[0] if release else path)
    if not on_cuda:
        return ok(GROUP, "nvcc", "not needed without a GPU")
    fix = "install the CUDA toolkit, or set deepspeed.optimizer.params.torch_adam=true"
    return note(GROUP, "nvcc", "not found: DeepSpeed can't build its fused Adam", fix)


def _abandoned_locks() -> list[Check]:
    """Remove the locks of killed builds, for which the next process that needs the operator would wait forever."""
    # Here, so that the doctor can still say that psutil is missing.
    from unigrf_dist.ranks.operator_build import is_abandoned

    checks = []
    for lock in sorted(path for pattern in ("*/lock", "*/*/lock") for path in extension_folder().glob(pattern)):
        try:
            if not is_abandoned(lock):
                continue
            lock.unlink()
        except FileNotFoundError:
            continue  # its build has just ended
        except OSError as error:
            checks.append(fail(GROUP, "build lock", f"{lock}: {error.strerror}", f"rm {lock}"))
        else:
            checks.append(ok(GROUP, "build lock", f"removed {lock}: a killed build had left it"))
    return checks


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout or done.stderr


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no output")
