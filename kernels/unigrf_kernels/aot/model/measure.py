"""Compile a case and model its main loops; keep the results under all that they depend on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from unigrf_kernels.aot.assembly import read_cubin
from unigrf_kernels.aot.cache import fingerprint
from unigrf_kernels.aot.case import CompileCase
from unigrf_kernels.aot.compiler import _compile
from unigrf_kernels.aot.targets import Target

from .chips import CHIPS
from .loops import Loop, main_loops
from .predict import Prediction, predict, resident_blocks
from .products import Products, products_of_loops


@dataclass(frozen=True)
class KernelModel:
    """The main loops of one kernel on one chip.

    Attributes:
        digest: of all that this depends on.
        arch: the chip's name.
        label: label of the case.
        loops: one for each sweep over the tiles that need no mask (or the masked ones, if all go through there).
    """

    digest: str
    arch: str
    label: str
    loops: tuple[Prediction, ...]

    @property
    def clocks_per_1000(self) -> float:
        """Predicted clocks of a multiprocessor for 1000 scores, all sweeps together."""
        return sum(loop.clocks_per_1000 for loop in self.loops)

    @property
    def repeats(self) -> float:
        """How many times the kernel computes the same numbers."""
        return max(loop.repeats for loop in self.loops)

    @property
    def instructions(self) -> float:
        """Instructions for each score, all sweeps together."""
        return sum(loop.instructions for loop in self.loops)


def model_kernel(case: CompileCase, target: Target) -> KernelModel:
    """Compile ``case`` and model it.

    Raises:
        ValueError: the kernel's loops of matrix products are not those of its intermediate code.
    """
    kernel = _compile(case, target)
    usage = read_cubin(kernel.asm["cubin"])
    loops, products = main_loops(usage.assembly), products_of_loops(kernel.asm["ttgir"])
    if not loops or len(loops) != len(products):
        raise ValueError(
            f"{target.name} {case.label}: {len(loops)} loops with matrix products in the assembly, "
            f"{len(products)} in the intermediate code"
        )
    chip = CHIPS[target.name]
    blocks = resident_blocks(
        chip, registers=usage.registers, warps=case.num_warps, shared_bytes=kernel.metadata.shared
    )
    # Each sweep has a loop for whole tiles and behind it one for those that need the mask.
    predictions = tuple(
        predict(
            _one_tile(loop, product, target.name, case.num_warps),
            product,
            chip,
            target.name,
            tile=_tile(case),
            warps=case.num_warps,
            blocks=blocks,
        )
        for loop, product in list(zip(loops, products, strict=True))[::2]
    )
    return KernelModel(model_digest(case, target), target.name, case.label, predictions)


def _tile(case: CompileCase) -> tuple[int, int]:
    rows, columns = ("BLOCK_M", "BLOCK_N") if "BLOCK_M" in case.constexprs else ("BLOCK_P", "BLOCK_K")
    return case.constexprs[rows], case.constexprs[columns]


def _one_tile(loop: Loop, products: Products, arch: str, warps: int) -> Loop:
    """The counts of one tile, where the assembler has unrolled the loop."""
    issued = 0.0
    for name, count in loop.matrix_shapes.items():
        shape = re.match(r"HGMMA\.(\d+)x(\d+)x(\d+)", name)
        if name.startswith("HMMA"):
            issued += count * warps * 2 * 16 * 8 * (16 if "16816" in name else 8)
        elif shape:
            issued += count * warps / 4 * 2 * int(shape[1]) * int(shape[2]) * int(shape[3])
    needed = sum(product.flops * product.repeats for product in products.products)
    times = round(issued / needed) if arch != "sm_100" else 1
    if times < 2:
        return loop
    return Loop(
        loop.instructions // times,
        type(loop.units)({unit: count // times for unit, count in loop.units.items()}),
        loop.barriers // times,
        loop.shared_bytes // times,
        loop.matrix_shapes,
    )


def model_digest(case: CompileCase, target: Target) -> str:
    """Digest of all that a model depends on: the kernel, its tiles, the chip, Triton, and the model itself."""
    return hashlib.sha256((fingerprint(case, target) + _digest_of_model()).encode()).hexdigest()[:32]


@cache
def _digest_of_model() -> str:
    files = (Path(__file__).with_name(f"{name}.py") for name in _DECIDING)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


_DECIDING = ("chips", "loops", "measure", "predict", "products")


def read_models(file: Path) -> dict[str, KernelModel]:
    """Models kept in ``file`` by their digests."""
    models = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        loops = tuple(Prediction(**loop) for loop in fields.pop("loops"))
        models[fields["digest"]] = KernelModel(loops=loops, **fields)
    return models


def write_models(file: Path, models: Iterable[KernelModel]) -> None:
    """Write one line of JSON for each model, by chip and label."""
    ordered = sorted(models, key=lambda model: (model.arch, model.label))
    file.write_text("".join(to_line(model) + "\n" for model in ordered), encoding="utf-8")


def to_line(model: KernelModel) -> str:
    """The model as one line of JSON."""
    return json.dumps(asdict(model))


def relabelled(model: KernelModel, case: CompileCase) -> KernelModel:
    """The model under the label of ``case``: labels are no part of the digest."""
    return replace(model, label=case.label)
