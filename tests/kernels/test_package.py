"""The package stands alone: what an import loads, what is exported, what the wheel would hold."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import spec_from_file_location
from pathlib import Path

import pytest

import unigrf_kernels

KERNELS = Path(__file__).resolve().parents[2] / "kernels"


def imported_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after ``statement``."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    environment = {**os.environ, "PYTHONPATH": str(KERNELS)}
    finished = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return set(finished.stdout.split())


def test_import_loads_neither_triton_nor_the_recommender() -> None:
    loaded = imported_by("import unigrf_kernels")
    assert "torch" in loaded
    assert not loaded & {"triton", "unigrf_dist"}


def test_operators_run_where_triton_is_not_installed() -> None:
    call = """
import sys
sys.modules["triton"] = None  # an import of it now fails
import torch, unigrf_kernels as package
offsets, x = torch.tensor([0, 2, 5]), torch.randn(5, 2, 4, requires_grad=True)
out = package.jagged_attention(x, x, x, offsets, scale=1.0, scaling_length=8.0)
package.seeded_dropout(package.swiglu(out, out), dropout=0.5, seed=1).sum().backward()
assert x.grad.isfinite().all()
"""
    imported_by(call)


@pytest.mark.parametrize("name", sorted(set(unigrf_kernels.__all__) - {"__version__"}))
def test_exported_names_are_functions_and_types_not_modules(name: str) -> None:
    assert callable(getattr(unigrf_kernels, name))


def test_version_is_read_without_importing_the_package() -> None:
    expand = pytest.importorskip("setuptools.config.expand")
    spec = spec_from_file_location("unigrf_kernels", KERNELS / "unigrf_kernels" / "__init__.py")
    assert expand.StaticModule("unigrf_kernels", spec).__version__ == unigrf_kernels.__version__


def test_the_wheel_holds_every_folder_with_code() -> None:
    setuptools = pytest.importorskip("setuptools")
    packages = setuptools.find_packages(str(KERNELS), include=["unigrf_kernels*"])
    folders = {path.parent.relative_to(KERNELS) for path in (KERNELS / "unigrf_kernels").rglob("*.py")}
    assert {Path(*name.split(".")) for name in packages} == folders
    assert (KERNELS / "unigrf_kernels" / "py.typed").exists()
