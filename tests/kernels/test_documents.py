"""The Python examples of the READMEs run as they stand; links lead somewhere; tables cover what is shipped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
READMES = sorted(KERNELS.rglob("README.md"))
DOCUMENTS = [*READMES, *sorted((KERNELS / "docs").glob("*.md"))]
RESOURCES = (KERNELS / "docs" / "resources.md").read_text(encoding="utf-8")


def name_of(path: Path) -> str:
    return path.stem if path.parent.name == "docs" else path.parent.name


def test_every_operator_folder_has_a_document() -> None:
    folders = {path.parent.name for path in READMES}
    assert {"kernels", "dropout", "hstu_layer", "llama_layer", "jagged_attention"} <= folders


@pytest.mark.parametrize("readme", READMES, ids=name_of)
def test_examples_run(readme: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, str(readme), "exec"), {})


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_resource_tables_have_a_line_for_every_shipped_kernel() -> None:
    """Variants by chip, kernel and dtype, counted from the labels of all configurations."""
    program = """
from unigrf_kernels.aot.run import discover_cases
for case in discover_cases():
    for arch in case.archs or ("sm_80", "sm_90", "sm_100"):
        print(arch, case.label, sep="|")
"""
    # A process of its own: interpreted kernels, which the tests run, have no signatures to compile.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(KERNELS)
    listed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    shipped: Counter[tuple[str, str]] = Counter()
    for line in listed.stdout.splitlines():
        arch, label = line.split("|")
        if arch.startswith("sm_"):
            kernel = re.match(r".+? (bf16|fp16|fp32)", label)
            assert kernel is not None, label
            shipped[arch, kernel[0]] += 1
    documented: dict[tuple[str, str], int] = {}
    arch = ""
    for line in RESOURCES.splitlines():
        if header := re.match(r"\| (sm_\d+) \| variants", line):
            arch = header[1]
        elif row := re.match(r"\| (.+?) \| (\d+) \|", line):
            documented[arch, row[1]] = int(row[2])
    assert documented == shipped
    for arch in ("sm_80", "sm_90", "sm_100"):
        on_chip = sum(count for (name, _), count in shipped.items() if name == arch)
        assert f"All {on_chip} configurations pass on each of" in RESOURCES
