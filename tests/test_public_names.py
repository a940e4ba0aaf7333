"""``import unigrf_dist``: its public names, and what it leaves alone until they are asked for."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import unigrf_dist

SLOW = ["torch", "torchrec", "deepspeed", "triton", "duckdb", "numpy", "unigrf_kernels"]


def python(code: str) -> str:
    """What ``code`` prints in a Python that has imported nothing yet."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "code", ["import unigrf_dist", "import unigrf_dist.cli, unigrf_dist.programs.data, unigrf_dist.programs.study"]
)
def test_starting_imports_nothing_heavy(code: str) -> None:
    assert python(f"import sys; {code}; print(sorted(set({SLOW}) & set(sys.modules)))") == "[]\n"


@pytest.mark.parametrize("name", [name for name in unigrf_dist.__all__ if name != "__version__"])
def test_a_public_name_is_the_object_that_its_module_defines(name: str) -> None:
    thing = getattr(unigrf_dist, name)
    home = importlib.import_module(thing.__module__)
    assert getattr(home, thing.__name__) is thing
    assert thing.__doc__


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(str(unigrf_dist.__file__)).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == unigrf_dist._HOMES
    assert sorted([*seen, "__version__"]) == sorted(unigrf_dist.__all__)


def test_no_public_name_hides_a_package() -> None:
    packages = {module.name for module in pkgutil.iter_modules(unigrf_dist.__path__)}
    assert packages & set(unigrf_dist.__all__) == set()


def test_dir_lists_names_that_were_not_asked_for_yet() -> None:
    assert python("import unigrf_dist; print('UniGRF' in dir(unigrf_dist), 'UniGRF' in vars(unigrf_dist))") == (
        "True False\n"
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'UniGFR'"):
        unigrf_dist.UniGFR  # noqa: B018


def test_the_command_tells_its_version() -> None:
    assert python("import sys; sys.argv = ['unigrf', '--version']; from unigrf_dist.cli import main; main()") == (
        f"unigrf {unigrf_dist.__version__}\n"
    )
