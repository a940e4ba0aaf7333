"""The Python examples of the READMEs run as they stand; the paths they link exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
READMES = sorted(KERNELS.rglob("README.md"))


def test_every_layer_has_a_document() -> None:
    folders = {path.parent.name for path in READMES}
    assert {"kernels", "dropout", "hstu_layer", "llama_layer", "jagged_attention"} <= folders


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_examples_run(readme: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, str(readme), "exec"), {})


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_links_lead_somewhere(readme: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text(encoding="utf-8")):
        assert (readme.parent / target).exists(), target
