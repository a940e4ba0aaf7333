"""Which packages are installed, and whether they are the versions that were seen working together."""

from __future__ import annotations

import sys
from importlib import metadata

from packaging.requirements import Requirement

from unigrf_dist.doctor.check import Check, fail, note, ok

GROUP = "Packages"
# Not in the project's metadata: it is installed without its dependencies, see setup.py.
TORCHREC = Requirement("torchrec==1.8.0")
SHOWN = ("torch", "deepspeed", "triton", "pyarrow", "duckdb")
FBGEMM = ("fbgemm-gpu", "fbgemm-gpu-cpu")
PIP = f"{sys.executable} -m pip install"


def check_packages() -> list[Check]:
    """Python, the project, the four pillars and the data libraries."""
    try:
        requirements = [Requirement(line) for line in metadata.requires("unigrf-dist") or []]
    except metadata.PackageNotFoundError:
        return [_python(), fail(GROUP, "unigrf-dist", "not installed", "make setup")]
    wanted = {requirement.name: requirement for requirement in requirements}
    checks = [_package(wanted[name]) for name in SHOWN]
    torchrec = _package(TORCHREC, options="--no-deps ")
    return [_python(), *checks[:1], torchrec, _fbgemm(wanted), *checks[1:]]


def _python() -> Check:
    version = sys.version.split()[0]
    if sys.version_info < (3, 10):  # noqa: UP036 - this is where a user of an older one is told
        return fail(GROUP, "python", version, "make setup PYTHON=python3.11")
    return ok(GROUP, "python", version)


def _package(wanted: Requirement, options: str = "") -> Check:
    mend = f"{PIP} {options}'{wanted.name}{wanted.specifier}'"
    version = _version(wanted.name)
    if version is None:
        return fail(GROUP, wanted.name, "not installed", mend)
    if not wanted.specifier.contains(version):
        return note(GROUP, wanted.name, f"{version}, tested with {wanted.specifier}", mend)
    return ok(GROUP, wanted.name, version)


def _fbgemm(wanted: dict[str, Requirement]) -> Check:
    installed = [name for name in FBGEMM if _version(name)]
    if not installed:
        return fail(GROUP, "fbgemm-gpu", "neither the CPU nor the CUDA build is installed", "make clean setup")
    if len(installed) > 1:
        # Both wheels own the folder fbgemm_gpu: whichever came last has overwritten parts of the other.
        mend = f"{sys.executable} -m pip uninstall --yes {' '.join(FBGEMM)} && make clean setup"
        return fail(GROUP, "fbgemm-gpu", "the CPU and the CUDA build are installed over each other", mend)
    return _package(wanted[installed[0]])


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
