"""Tiles that are timed: what they may be, and that they compute what the shipped ones do."""

from __future__ import annotations

import pytest
import torch

from unigrf_kernels.bench.cases.jagged_attention_inputs import BenchCase
from unigrf_kernels.bench.tiles import main, run, variants
from unigrf_kernels.ops.jagged_attention import jagged_attention


def test_no_warp_repeats_the_rows_of_another_and_keys_divide_queries() -> None:
    shipped, *changed = variants(64, True)
    assert shipped.tile is None
    assert {each.kernel for each in changed} == {"forward", "key_gradient", "query_gradient"}
    for each in changed:
        assert each.tile is not None
        split_over_warps = each.tile.cols if each.kernel == "key_gradient" else each.tile.rows
        assert split_over_warps // each.tile.num_warps >= 16
        assert each.kernel != "query_gradient" or each.tile.rows % each.tile.cols == 0
        schedule = each.schedule("sm_90")
        assert getattr(schedule, each.kernel) == each.tile


def test_a_variant_computes_what_the_reference_does() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs = BenchCase("two", (40, 7), 1, 16, num_positions=8, num_buckets=9).inputs(torch.float32, device)
    variant = next(each for each in variants(16, True) if each.kernel == "query_gradient")
    out = jagged_attention(
        inputs.q,
        inputs.k,
        inputs.v,
        inputs.plan.offsets,
        plan=inputs.plan,
        implementation="reference",
        **inputs.options,
    )
    expected = [out, *torch.autograd.grad(out, inputs.leaves, inputs.grad_out)]
    for found, wanted in zip(run(variant, inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="times all tiles where there is a GPU")
def test_without_a_gpu_one_line_says_so(capsys: pytest.CaptureFixture[str], tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert main(["--json", str(tmp_path / "tiles.json")]) == 2
    assert "on a GPU" in capsys.readouterr().err
