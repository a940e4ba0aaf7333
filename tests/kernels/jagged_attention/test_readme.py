"""The README's example runs, and the files it names exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import unigrf_kernels.ops.jagged_attention

FOLDER = Path(unigrf_kernels.ops.jagged_attention.__file__).parent
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_example_runs() -> None:
    example, _ = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["out"].shape == (10, 2, 16)
    assert names["time_bias"].grad.abs().sum() > 0


def test_named_files_exist() -> None:
    files = set(re.findall(r"[a-z_]+\.py", README))
    assert len(files) >= 7
    assert not [name for name in files if not (FOLDER / name).exists()]
