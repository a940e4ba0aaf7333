"""Which packages are installed, and whether in the versions that are tested together."""

from __future__ import annotations

import sys
from importlib import metadata

from packaging.requirements import Requirement

from unigrf_dist.doctor.check import Check, fail, note, ok

GROUP = "Packages"
# Not in the project's metadata, because it is installed without its dependencies; see setup.py.
TORCHREC = Requirement("torchrec==1.8.0")
SHOWN = ("torch", "deepspeed", "triton", "pyarrow", "duckdb")
FBGEMM = ("fbgemm-gpu", "fbgemm-gpu-cpu")
PIP = f"{sys.executable} -m pip install"


def check_packages() -> list[Check]:
    """Python, the project, torch, TorchRec, FBGEMM, DeepSpeed, Triton and the data libraries."""
    try:
        requirements = [Requirement(line) for line in metadata.requires("unigrf-dist") or []]
    except metadata.PackageNotFoundError:
        return [_python(), fail(GROUP, "unigrf-dist", "not installed", "make setup")]
    required = {requirement.name: requirement for requirement in requirements}
    checks = [_package(required[name]) for name in SHOWN]
    torchrec = _package(TORCHREC, options="--no-deps ")
    return [_python(), *checks[:1], torchrec, _fbgemm(required), *checks[1:]]


def _python() -> Check:
    version = sys.version.split()[0]
    if sys.version_info < (3, 10):  # noqa: UP036 - this check is for users of an older Python
        return fail(GROUP, "python", version, "make setup PYTHON=python3.11")
    return ok(GROUP, "python", version)


def _package(required: Requirement, options: str = "") -> Check:
    fix = f"{PIP} {options}'{required.name}{required.specifier}'"
    version = _version(required.name)
    if version is None:
        return fail(GROUP, required.name, "not installed", fix)
    if not required.specifier.contains(version):
        return note(GROUP, required.name, f"{version}, tested with {required.specifier}", fix)
    return ok(GROUP, required.name, version)


def _fbgemm(required: dict[str, Requirement]) -> Check:
    installed = [name for name in FBGEMM if _version(name)]
    if not installed:
        return fail(GROUP, "fbgemm-gpu", "neither the CPU nor the CUDA build is installed", "make clean setup")
    if len(installed) > 1:
        # Both wheels own the folder fbgemm_gpu: whichever came last has overwritten parts of the other.
        fix = f"{sys.executable} -m pip uninstall --yes {' '.join(FBGEMM)} && make clean setup"
        return fail(GROUP, "fbgemm-gpu", "the CPU and the CUDA build are installed over each other", fix)
    return _package(required[installed[0]])


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
