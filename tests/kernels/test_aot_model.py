"""The model of compiled loops: its counts by hand, its budgets, and the shipped kernels within theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unigrf_kernels.aot.model.budgets import format_budgets, over_budget, read_budgets
from unigrf_kernels.aot.model.chips import CHIPS
from unigrf_kernels.aot.model.loops import BUCKETS_PER_TILE, Loop, main_loops
from unigrf_kernels.aot.model.measure import KernelModel, read_models, write_models
from unigrf_kernels.aot.model.predict import Prediction, predict, resident_blocks
from unigrf_kernels.aot.model.products import Product, Products, clocks, products_of_loops

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "kernels" / "docs"

# A loop with a rare branch in 64 bits, a usual branch, a loop over buckets, a wait that spins, and a jump back
# from behind the end of the function.
ASSEMBLY = (
    "MUFU.EX2 R0, R0",
    ".L_x_1:",
    "HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], R24",
    "@P1 BRA `(.L_x_2)",
    *["I2F.S64 R2, R2"] * 5,
    "BRA `(.L_x_3)",
    ".L_x_2:",
    "MUFU.EX2 R0, R0",
    "@P2 FMUL R1, R1, R1",
    ".L_x_3:",
    "LDS.128 R4, [R5]",
    ".L_x_4:",
    "IADD3 R1, R1, R1, RZ",
    "BAR.SYNC.DEFER_BLOCKING 0x0",
    "@P3 BRA `(.L_x_4)",
    ".L_x_5:",
    "SYNCS.PHASECHK.TRANS64.TRYWAIT P3, [UR37], R4",
    "@!P4 BRA `(.L_x_5)",
    ".L_x_6:",
    "@P0 BRA `(.L_x_1)",
    "EXIT",
    "NANOSLEEP",
    "BRA `(.L_x_6)",
)

LAYOUTS = """
#mma = #ttg.nvidia_mma<{versionMajor = 3, versionMinor = 0, warpsPerCTA = [8, 1], instrShape = [16, 64, 16]}>
"""
LOOP = """
    %0 = scf.for %1 = %c0 to %2 step %c1 iter_args(%3 = %4) -> (f32)  : i32 {
      %5 = ttng.warp_group_dot %6, %7, %8 {isAsync = true} : !ttg.memdesc<ROWSx128xbf16, #shared, #smem> * \
!ttg.memdesc<128x64xbf16, #shared1, #smem> -> tensor<ROWSx64xf32, #mma>
      %9 = scf.if %10 -> (f32) {
      } else {
      }
    } loc(#loc)
"""


def test_an_iteration_takes_the_usual_branch_and_all_buckets() -> None:
    (loop,) = main_loops(ASSEMBLY)
    assert loop.units["matrix"] == 1
    assert loop.units["special"] == 1
    assert loop.units["float"] == 1
    assert loop.units["integer"] == BUCKETS_PER_TILE
    assert loop.barriers == BUCKETS_PER_TILE + 1
    assert loop.shared_bytes == 32 * 16
    # Product, jump, two of the usual branch, load, three of each bucket, the wait's two, the jump back.
    assert loop.instructions == 1 + 1 + 2 + 1 + 3 * BUCKETS_PER_TILE + 2 + 1


@pytest.mark.parametrize(("rows", "repeats"), [(128, 1), (64, 2)])
def test_eight_warps_need_128_rows(rows: int, repeats: int) -> None:
    (products,) = products_of_loops(LAYOUTS + LOOP.replace("ROWS", str(rows)))
    assert products.products == (Product(rows, 64, 128, True, 64, repeats),)
    assert products.repeats == repeats
    # Two groups of warps run whether or not they share the rows.
    assert clocks(products.products[0], 4096, 128, "sm_90") == max(
        2 * 128 * 64 * 128 / 4096, 2 * 2 * 128 * (64 + 64) / 128
    )


def test_a_loop_around_a_loop_with_products_is_no_main_loop() -> None:
    """Over the heads of a group, with the first product before the loop over tiles."""
    head, product, *_ = LOOP.strip("\n").splitlines()
    inner = "\n".join("  " + line for line in LOOP.splitlines())
    nested = "\n".join([head, product, inner, "    }", LOOP]).replace("ROWS", "128")
    assert len(products_of_loops(LAYOUTS + nested)) == 2


def test_the_busiest_unit_bounds_a_loop_that_enough_blocks_hide() -> None:
    loop = Loop(instructions=400)
    loop.units.update({"special": 64, "float": 160, "integer": 35})
    product = Product(128, 64, 64, True, 64, 1.0)
    products = Products((product, product), 1.0)
    chip = CHIPS["sm_90"]

    def bound(blocks: int) -> Prediction:
        return predict(loop, products, chip, "sm_90", tile=(128, 64), warps=8, blocks=blocks)

    # 64 instructions of 8 warps, 16 lanes a clock, 128 x 64 scores.
    assert bound(4).bound == "special functions"
    assert bound(4).clocks_per_1000 == pytest.approx(1000 * 64 * 8 * 32 / 16 / (128 * 64))
    assert bound(4).tflops == pytest.approx(4 * 64 * 128 * 64 / 1024 * 132 * 1.755e9 / 1e12, rel=1e-3)
    assert bound(1).bound == "latency"
    assert bound(1).clocks_per_1000 > bound(4).clocks_per_1000


@pytest.mark.parametrize(
    ("registers", "warps", "shared", "blocks"), [(128, 8, 1024, 2), (255, 4, 1024, 2), (32, 4, 110 * 1024, 2)]
)
def test_blocks_of_a_multiprocessor(registers: int, warps: int, shared: int, blocks: int) -> None:
    assert resident_blocks(CHIPS["sm_90"], registers=registers, warps=warps, shared_bytes=shared) == blocks


def model(*, instructions: float = 10.0, clocks_: float = 100.0, repeats: float = 1.0) -> KernelModel:
    loop = Prediction(64, 64, 4, 2, instructions, 1, 2, 3, 4, 5, "64x64x64", repeats, "issue", clocks_, 1.0)
    return KernelModel("digest", "sm_90", "some kernel bf16 D64 silu 64x64", (loop,))


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (model(), None),
        (model(instructions=11.0), "instructions for each score"),
        (model(clocks_=110.0), "clocks for 1000 scores"),
        (model(repeats=2.0), "computes the same numbers 2 times"),
    ],
)
def test_budgets_hold(changed: KernelModel, fault: str | None, tmp_path: Path) -> None:
    file = tmp_path / "budgets.txt"
    file.write_text(format_budgets([model()]), encoding="utf-8")
    faults = over_budget([changed], read_budgets(file))
    assert len(faults) == (fault is not None)
    assert all(str(fault) in text for text in faults)


def test_a_kernel_needs_a_budget() -> None:
    assert "has no budget" in over_budget([model()], {})[0]


def test_kept_models_come_back(tmp_path: Path) -> None:
    write_models(tmp_path / "models.jsonl", [model()])
    assert read_models(tmp_path / "models.jsonl") == {"digest": model()}


def test_shipped_kernels_stay_within_their_budgets() -> None:
    """What changed since the models were kept is compiled: seconds for each kernel."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT / "kernels")
    files = ["--known", str(DOCS / "models.jsonl"), "--budgets", str(DOCS / "budgets.txt")]
    command = [sys.executable, "-m", "unigrf_kernels.aot", "--model", "--arch", "sm_90", *files]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "predicted TFLOP/s" in done.stdout
