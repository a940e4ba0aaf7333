"""The main loops of a kernel's assembly, and how many instructions of each unit one iteration issues."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

BUCKETS_PER_TILE = 16
"""Iterations of a loop without products inside a main loop: of the time-bias gradient, one for each time bucket in
a 64 x 64 tile, 16 on average over MovieLens-1M's sequences."""

# A tile whose times span 2^31 seconds counts in 64 bits. No real tile does, so that branch is not taken; it is
# known by its conversions, of which the tile's bounds need only a few.
_MOST_WIDE_CONVERSIONS = 4
_WIDE_CONVERSION = re.compile(r"I2F\S*\.[US]64")
_MATRIX = re.compile(r"^(HMMA|HGMMA|UTC\w*MMA)\b")
_BRANCH = re.compile(r"^BRA\b.*?(\.L_x_\d+)")
_PREDICATE = re.compile(r"^@!?U?P\w+\s+")
_BARRIER = re.compile(r"^(BAR\.SYNC|WARPGROUP\.DEPBAR|SYNCS\.PHASECHK)")
_UNITS = (
    ("matrix", _MATRIX),
    ("special", re.compile(r"^(MUFU|I2F|F2I|F2F)\b(?!P)")),
    ("float2", re.compile(r"^(FFMA2|FMUL2|FADD2)\b")),
    ("float", re.compile(r"^(FFMA|FMUL|FADD)\b")),
    ("multiply", re.compile(r"^IMAD\b")),
    (
        "integer",
        re.compile(
            r"^(IADD\w*|VIADD\w*|LEA|LOP3|SHF|ISETP|SEL|FSEL|FSETP|FSET|FMNMX\w*|PRMT|IMNMX|VIMNMX\w*|IABS|I2FP|F2FP"
            r"|PLOP3|P2R|R2P|MOV|SGXT)\b"
        ),
    ),
    ("shared", re.compile(r"^(LDSM|LDS|STSM|STS|LDGSTS|SHFL|REDUX)\b")),
    ("global", re.compile(r"^(LDG|STG)\b")),
)


@dataclass
class Loop:
    """One iteration of a main loop, as one warp issues it on the path that a usual tile takes.

    Attributes:
        instructions: all instructions, loops inside taken `BUCKETS_PER_TILE` times.
        units: instructions by unit.
        barriers: barriers and waits.
        shared_bytes: bytes that a warp moves through shared memory.
        matrix_shapes: matrix instructions by their mnemonic.
    """

    instructions: int = 0
    units: Counter[str] = field(default_factory=Counter)
    barriers: int = 0
    shared_bytes: int = 0
    matrix_shapes: Counter[str] = field(default_factory=Counter)


@dataclass
class _Block:
    """Instructions without a jump among them; `next` are blocks behind it that it can go on to."""

    first: int
    last: int
    next: list[int]
    weight: int = 1


def main_loops(assembly: Sequence[str]) -> list[Loop]:
    """The innermost loops that hold matrix instructions, in the order of the code."""
    spans = list(_back_jumps(assembly))
    matrix = [bool(_MATRIX.match(_bare(line))) for line in assembly]
    with_products = [span for span in spans if any(matrix[span[0] : span[1]])]
    # Code behind a function's end that jumps back into a loop (slow paths of waits) is no loop of its own.
    nested = [
        span for span in with_products if not any(low < span[0] < high < span[1] for low, high in with_products)
    ]
    inner = [
        span
        for span in nested
        if not any(other != span and span[0] <= other[0] and other[1] <= span[1] for other in nested)
    ]
    return [_usual_iteration(assembly, first, last, spans) for first, last in sorted(inner)]


def _back_jumps(assembly: Sequence[str]) -> Iterator[tuple[int, int]]:
    labels: dict[str, int] = {}
    for index, line in enumerate(assembly):
        if line.endswith(":"):
            labels[line[:-1]] = index
        else:
            jump = _BRANCH.match(_bare(line))
            if jump and jump[1] in labels:
                yield labels[jump[1]], index


def _usual_iteration(assembly: Sequence[str], first: int, last: int, spans: Sequence[tuple[int, int]]) -> Loop:
    """The longest way through the loop's branches that a tile of real times takes."""
    blocks = _blocks(assembly, first, last)
    for low, high in spans:
        is_wait = any("TRYWAIT" in line for line in assembly[low:high]) and high - low < 10
        if first < low and high < last and not is_wait:
            for block in blocks:
                if low <= block.first and block.last <= high:
                    block.weight = BUCKETS_PER_TILE
    length: list[float] = [0.0] * len(blocks)
    following: list[int | None] = [None] * len(blocks)
    for number in range(len(blocks) - 1, -1, -1):
        block = blocks[number]
        own = block.weight * (block.last - block.first + 1)
        lines = assembly[block.first : block.last + 1]
        if sum(bool(_WIDE_CONVERSION.search(line)) for line in lines) > _MOST_WIDE_CONVERSIONS:
            own = -1_000_000
        best = max(block.next, key=lambda each: length[each], default=None)
        following[number] = best
        length[number] = own + (0.0 if best is None else length[best])
    loop = Loop()
    step: int | None = 0
    while step is not None:
        block = blocks[step]
        for line in assembly[block.first : block.last + 1]:
            _count(loop, _bare(line), block.weight)
        step = following[step]
    return loop


def _blocks(assembly: Sequence[str], first: int, last: int) -> list[_Block]:
    starts = {first}
    for index in range(first, last + 1):
        if assembly[index].endswith(":"):
            starts.add(index)
        elif _BRANCH.match(_bare(assembly[index])) and index < last:
            starts.add(index + 1)
    ordered = sorted(starts)
    number_of = {start: number for number, start in enumerate(ordered)}
    labels = {assembly[start][:-1]: number_of[start] for start in ordered if assembly[start].endswith(":")}
    blocks = []
    for number, start in enumerate(ordered):
        end = (ordered[number + 1] if number + 1 < len(ordered) else last + 1) - 1
        jump = _BRANCH.match(_bare(assembly[end]))
        always = jump is not None and not _PREDICATE.match(assembly[end]) and "UP" not in assembly[end]
        following = [] if always or number + 1 == len(ordered) else [number + 1]
        if jump and labels.get(jump[1], -1) > number:
            following.append(labels[jump[1]])
        blocks.append(_Block(start, end, following))
    return blocks


def _count(loop: Loop, instruction: str, weight: int) -> None:
    if instruction.endswith(":"):
        return
    loop.instructions += weight
    if _BARRIER.match(instruction):
        loop.barriers += weight
    for unit, pattern in _UNITS:
        if pattern.match(instruction):
            loop.units[unit] += weight
            if unit == "matrix":
                loop.matrix_shapes[instruction.split()[0]] += weight
            elif unit == "shared":
                loop.shared_bytes += weight * _bytes_of_warp(instruction)
            return


def _bytes_of_warp(instruction: str) -> int:
    """Bytes of 32 lanes, without conflicts of banks."""
    if instruction.startswith(("LDSM", "STSM")):
        matrices = re.search(r"\.([24])$", instruction.split()[0])
        return 128 * int(matrices[1]) if matrices else 128
    width = re.search(r"\.(64|128)\b", instruction.split()[0])
    return 32 * int(width[1]) // 8 if width else 128


def _bare(line: str) -> str:
    return _PREDICATE.sub("", line)
