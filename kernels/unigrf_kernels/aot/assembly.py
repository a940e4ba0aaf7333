"""What can be read from compiled code: registers, memory of a thread, instructions inside loops."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Resources of one kernel.

    Attributes:
        registers: 32-bit registers of a thread (of a lane, vector and accumulation registers together, on AMD).
        local_bytes: bytes of a thread's stack frame and local memory, where spilled registers live.
        assembly: one string per instruction and label, in order.
    """

    registers: int
    local_bytes: int
    assembly: tuple[str, ...]


def read_cubin(cubin: bytes) -> Usage:
    """Read an NVIDIA binary with the tools that Triton's wheel carries.

    Raises:
        ValueError: a tool answered in an unknown form.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _tool("cuobjdump", "--dump-resource-usage", str(path))
        listing = _tool("nvdisasm", "-c", str(path))
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    if found is None:
        raise ValueError(f"cuobjdump must report REG, STACK, SHARED and LOCAL, got {usage!r}")
    registers, stack, local = (int(number) for number in found.groups())
    lines = []
    for line in listing.splitlines():
        label = re.match(r"\s*(\.L_x_\d+):", line)
        instruction = re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?);", line)
        if label:
            lines.append(label[1] + ":")
        elif instruction:
            lines.append(instruction[1])
    return Usage(registers, stack + local, tuple(lines))


def read_amdgcn(assembly: str) -> Usage:
    """Read AMD assembly, whose metadata names its resources."""

    def number(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", assembly)
        return int(found[1]) if found else 0

    lines = [line.split(";")[0].strip() for line in assembly.splitlines()]
    code = tuple(line for line in lines if line and (not line.startswith(".") or line.endswith(":")))
    registers = number("vgpr_count") + number("agpr_count")
    return Usage(registers, number("private_segment_fixed_size"), code)


def count_in_loops(assembly: tuple[str, ...], pattern: str) -> int:
    """Instructions that match `pattern` and lie between a label and a jump back to it."""
    labels: dict[str, int] = {}
    in_loop = [False] * len(assembly)
    for index, line in enumerate(assembly):
        if line.endswith(":"):
            labels[line[:-1]] = index
            continue
        target = re.search(r"\.L_x_\d+|\.LBB\d+_\d+", line)
        if target and target[0] in labels:
            start = labels[target[0]]
            in_loop[start:index] = [True] * (index - start)
    return sum(inside and bool(re.search(pattern, line)) for line, inside in zip(assembly, in_loop, strict=True))


def _tool(name: str, *arguments: str) -> str:
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([path, *arguments], check=True, capture_output=True, text=True).stdout
