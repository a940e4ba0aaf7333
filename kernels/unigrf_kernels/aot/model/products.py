"""The matrix products of a kernel's main loops, from Triton's intermediate code, and their repeats."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

_LAYOUT = re.compile(r"^(#mma\d*) = .*?warpsPerCTA = \[([\d, ]+)\], instrShape = \[([\d, ]+)\]")
_LINEAR = re.compile(r"^(#linear\d*) = #ttg\.linear<\{.*?lane = (\[.*?\]), warp = (\[.*?\]), block")
_HALF = re.compile(r"(!ttg\.memdesc|tensor)<(\d+)x(\d+)x(?:bf16|f16), (#\w+)?")
_RESULT = re.compile(r"-> tensor<(\d+)x(\d+)xf32, (#mma\d*)>")
_SUMS = re.compile(r"memdesc<(\d+)x(\d+)xf32, #tmem")
_LOADED = re.compile(r"tmem_load .*-> tensor<\d+x\d+xf32, (#linear\d*)>")


@dataclass(frozen=True)
class Product:
    """One matrix product of a loop's iteration.

    Attributes:
        rows: M.
        columns: N.
        depth: K.
        left_in_shared: the left operand comes from shared memory, not from registers.
        instruction_columns: columns of one matrix instruction.
        repeats: how many warps, or groups of four, compute the same numbers; 1 where none is wasted.
    """

    rows: int
    columns: int
    depth: int
    left_in_shared: bool
    instruction_columns: int
    repeats: float

    @property
    def flops(self) -> int:
        """What must be computed."""
        return 2 * self.rows * self.columns * self.depth


@dataclass(frozen=True)
class Products:
    """Products of one loop, and how often the numbers between them are computed."""

    products: tuple[Product, ...]
    repeats: float


def products_of_loops(ttgir: str) -> list[Products]:
    """Products of the innermost loops that have any, in the order of the code."""
    lines = ttgir.splitlines()
    layouts, linear = _layouts(lines)
    open_loops: list[tuple[int, list[Product], list[float], bool]] = []
    found: list[Products] = []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        text = line.strip()
        if re.match(r"(%\S+ = )?(scf\.for|scf\.while)\b", text):
            open_loops.append((indent, [], [], False))
        elif open_loops and text.startswith("}") and indent == open_loops[-1][0] and " do " not in text:
            _, products, loaded, is_outer = open_loops.pop()
            if open_loops and (products or is_outer):
                open_loops[-1] = (*open_loops[-1][:3], True)
            if products and not is_outer:
                repeats = max([product.repeats for product in products] + loaded)
                found.append(Products(tuple(products), repeats))
        elif open_loops:
            product = _product(text, layouts)
            if product:
                open_loops[-1][1].append(product)
            read = _LOADED.search(text)
            if read:
                open_loops[-1][2].append(linear[read[1]])
    return found


def _layouts(lines: list[str]) -> tuple[dict[str, tuple[list[int], list[int]]], dict[str, float]]:
    matrix: dict[str, tuple[list[int], list[int]]] = {}
    linear: dict[str, float] = {}
    for line in lines:
        if found := _LAYOUT.match(line):
            matrix[found[1]] = (_numbers(found[2]), _numbers(found[3]))
        elif found := _LINEAR.match(line):
            bases = re.findall(r"\[(\d+(?:, \d+)*)\]", found[2] + found[3])
            linear[found[1]] = 2.0 ** sum(not any(_numbers(base)) for base in bases)
    return matrix, linear


def _product(text: str, layouts: dict[str, tuple[list[int], list[int]]]) -> Product | None:
    if not re.search(r"= (tt\.dot|ttng\.warp_group_dot) |^(%\S+ = )?ttng\.tc_gen5_mma ", text):
        return None
    operands = _HALF.findall(text)
    if len(operands) < 2:
        return None
    left, right = operands[:2]
    rows, depth, columns = int(left[1]), int(left[2]), int(right[2])
    if "tc_gen5_mma" in text:
        # Tensor memory keeps the left operand of some; a tile of 64 rows fills half of the unit.
        shared = left[3] != "#tmem" and "tmem" not in text.split(" : ", 1)[1].split(">", 1)[0]
        return Product(rows, columns, depth, shared, min(columns, 256), 1.0)
    result = _RESULT.search(text)
    if result is None:
        return None
    warps, instruction = layouts[result[3]]
    repeats = max(1.0, warps[0] * instruction[0] / rows) * max(1.0, warps[1] * instruction[1] / columns)
    return Product(rows, columns, depth, left[0] != "tensor", instruction[1], repeats)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def clocks(product: Product, tensor_flops: int, shared_bytes_per_clock: int, generation: str) -> float:
    """Clocks of the tensor cores for one product, repeats included, limited by what shared memory delivers."""
    flops = product.flops * product.repeats
    if generation == "sm_80":  # operands are in registers; their loads count as instructions
        return flops / tensor_flops
    rows = 64 if generation == "sm_90" else min(128, product.rows)
    rate = tensor_flops * (1 if generation == "sm_90" else rows / 128)
    instructions = prod((product.rows / rows, product.columns / product.instruction_columns)) * product.repeats
    left = rows if product.left_in_shared else 0
    moved = 2 * product.depth * (left + product.instruction_columns)
    return max(flops / rate, instructions * moved / shared_bytes_per_clock)
