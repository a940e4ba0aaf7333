"""One process that has imported what is slow to import, and forks for each mutant.

torch, TorchRec and DeepSpeed are imported once, the project's own modules never: a fork imports those from its
own copy of the tree, where one file holds the mutant. The server from which tests take ranks is shared likewise.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import sys
import time
import types
from collections.abc import Sequence
from multiprocessing import forkserver, get_context
from pathlib import Path

import psutil

_HEAVY = [
    "torch",
    "torch.distributed",
    "torchrec",
    "deepspeed",
    "numpy",
    "scipy.stats",
    "pyarrow.parquet",
    "duckdb",
]
_TEST_TOOLS = ["pytest", "_pytest.assertion.rewrite", "hypothesis", "hypothesis.strategies", "sklearn.metrics"]
_COPIED = ("unigrf_dist", "kernels/unigrf_kernels", "tests", "configs", "docs", "tools")
_FILES = ("pyproject.toml", "setup.py", "Makefile", "constraints.txt", "README.md")
_NO_TESTS = 5  # what pytest returns where it found none


def warm_up(root: Path, preload: Sequence[str] = _HEAVY) -> None:
    """Import what all mutants share. Call it once, before the first fork."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(root / "build" / "inductor"))
    # Repeatable examples, and no bytecode: a mutant may have the size and the second of the file that it replaces.
    os.environ.update(CI="1", PYTHONDONTWRITEBYTECODE="1")
    if not shutil.which("nvidia-smi"):
        os.environ.setdefault("TRITON_INTERPRET", "1")
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    for name in (*preload, *_TEST_TOOLS):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    if preload:
        _share_rank_server()


def _share_rank_server() -> None:
    """Start the server of `tests/spawn.py` here, and let no fork believe that it has to start its own."""
    from tests import spawn

    spawn._start_server(get_context("forkserver"))
    server = forkserver._forkserver  # type: ignore[attr-defined]
    # In a fork, the server is no child of the process, which this method would take for its end.
    server.ensure_running = forkserver.ensure_running = lambda: None


class Bench:
    """A copy of the tree in which one mutant after another is tried.

    Args:
        root: root of the repository.
        folder: folder to make the copy in.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.tree = folder / "tree"
        self.log = folder / "log.txt"
        skip = shutil.ignore_patterns("__pycache__", "*.so")
        for name in _COPIED:
            if (root / name).is_dir():
                shutil.copytree(root / name, self.tree / name, ignore=skip)
        for name in _FILES:
            if (root / name).exists():
                shutil.copy(root / name, self.tree / name)
        self._pid = 0
        self._begun = self._limit = 0.0
        self._restored: tuple[Path, str] | None = None

    def start(self, path: str, source: str, tests: Sequence[str], limit_seconds: float) -> None:
        """Write ``source`` to ``path`` and begin the tests."""
        file = self.tree / path
        self._restored = file, file.read_text(encoding="utf-8")
        file.write_text(source, encoding="utf-8")
        self._begun, self._limit = time.monotonic(), limit_seconds
        sys.stdout.flush()
        self._pid = os.fork()
        if not self._pid:
            _run_tests(self.tree, self.log, tests)

    @property
    def is_busy(self) -> bool:
        """Whether a mutant is being tried."""
        return self._pid != 0

    def poll(self) -> tuple[int | None, float] | None:
        """Exit status of the tests (None: out of time) and their seconds; None while they run."""
        pid, wait_status = os.waitpid(self._pid, os.WNOHANG)
        seconds = time.monotonic() - self._begun
        if not pid and seconds < self._limit:
            return None
        status = os.waitstatus_to_exitcode(wait_status) if pid else None
        if not pid:
            os.killpg(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        self._stop_ranks()
        self._pid = 0
        assert self._restored is not None
        file, source = self._restored
        file.write_text(source, encoding="utf-8")
        return status, seconds

    def _stop_ranks(self) -> None:
        """Ranks that outlived their test are children of the server; they work in this tree."""
        server = getattr(forkserver._forkserver, "_forkserver_pid", None)  # type: ignore[attr-defined]
        if server is None:
            return
        for process in psutil.Process(server).children():
            with contextlib.suppress(psutil.Error):
                if Path(process.cwd()) == self.tree:
                    process.kill()


def _run_tests(tree: Path, log: Path, tests: Sequence[str]) -> None:
    """The fork: becomes a fresh-looking pytest in ``tree``, and never returns."""
    status = 1
    try:
        os.setsid()
        output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(tree)
        for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "tools", "unigrf_dist")]:
            del sys.modules[name]
        roots = [str(tree), str(tree / "kernels")]
        sys.path[:0] = roots
        sys.argv = ["pytest"]
        # A rank imports the main module of the process that asks for it: an empty one, not this program.
        sys.modules["__main__"] = types.ModuleType("__main__")
        sys.dont_write_bytecode = True
        os.environ["PYTHONPATH"] = os.pathsep.join(roots)
        import pytest

        # Short tracebacks: a long one spells out the arguments of a test, and tensors take seconds to spell.
        options = ["-x", "-q", "--tb=short", "-p", "no:cacheprovider", "--no-header"]
        status = int(pytest.main([*options, *tests]))
    except BaseException:  # a mutant may raise anything, at import too
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        # Not the interpreter's own end, which would run what the warm process has registered.
        os._exit(status)


def verdict(status: int | None) -> str:
    """Outcome of a mutant from the exit status of its tests."""
    if status is None:
        return "timeout"
    return {0: "survived", _NO_TESTS: "invalid"}.get(status, "killed")
