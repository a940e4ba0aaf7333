"""Adam in the backward of FBGEMM's CPU tables, against the algorithm, number by number in Python."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
import torchrec.distributed.batched_embedding_kernel as torchrec_kernels
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice
from torch import Tensor

from unigrf_dist.model import cpu_adam
from unigrf_dist.model.cpu_adam import CpuAdamTable, cpu_adam_tables

ROWS, WIDTH = (7, 5), 4
RATE, BETAS, EPS = 0.25, (0.5, 0.75), 0.125


def table(optimizer: EmbOptimType = EmbOptimType.ADAM, build: Any = CpuAdamTable, **changes: Any) -> Any:
    given = {"beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS, "learning_rate": RATE, **changes}
    rows = given.pop("rows", [(number, WIDTH) for number in ROWS])
    built = build(
        [(number, width, EmbeddingLocation.HOST, ComputeDevice.CPU) for number, width in rows],
        optimizer=optimizer,
        pooling_mode=given.pop("pooling_mode", PoolingMode.NONE),
        device=torch.device("cpu"),
        **given,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in built.split_embedding_weights():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return built


def adam(
    weights: Tensor, steps: list[tuple[int, dict[int, Tensor]]], betas: tuple[float, float], eps: float
) -> tuple[list[list[float]], ...]:
    """Algorithm 1 of Kingma & Ba on the rows that a step names, and on no others; weights and both moments."""
    values = weights.double().tolist()
    first, second = ([[0.0] * WIDTH for _ in values] for _ in range(2))
    for t, gradients in steps:
        for row, gradient in gradients.items():
            for column, g in enumerate(gradient.tolist()):
                m = first[row][column] = betas[0] * first[row][column] + (1 - betas[0]) * g
                v = second[row][column] = betas[1] * second[row][column] + (1 - betas[1]) * g * g
                unbiased = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
                values[row][column] -= RATE * unbiased[0] / (unbiased[1] ** 0.5 + eps)
    return values, first, second


# Ids of both tables in each step, two samples for each table; a row comes twice in the first and the last.
IDS = [([3, 0, 3], [4, 1]), ([6], []), ([0, 3, 0, 0], [1, 2])]


def step(of: CpuAdamTable, ids: tuple[list[int], list[int]], gradient: Tensor) -> Tensor:
    offsets = torch.tensor([0, 1, len(ids[0]), len(ids[0]) + len(ids[1]) // 2, len(ids[0]) + len(ids[1])])
    rows = of(torch.tensor([*ids[0], *ids[1]]), offsets)
    rows.backward(gradient)
    return rows.detach()


def drawn(number: int, seed: int) -> Tensor:
    return torch.randn(number, WIDTH, generator=torch.Generator().manual_seed(seed))


def test_rows_are_looked_up_per_table_and_move_by_adam() -> None:
    of = table()
    starts = [weight.clone() for weight in of.split_embedding_weights()]
    records: list[list[tuple[int, dict[int, Tensor]]]] = [[], []]
    for t, ids in enumerate(IDS, start=1):
        before = [weight.clone() for weight in of.split_embedding_weights()]
        gradient = drawn(len(ids[0]) + len(ids[1]), seed=t)
        found = step(of, ids, gradient)
        assert torch.equal(found, torch.cat([before[0][ids[0]], before[1][torch.tensor(ids[1]).long()]]))
        for record, rows, part in zip(records, ids, gradient.split([len(each) for each in ids]), strict=True):
            summed: dict[int, Tensor] = {}
            for row, value in zip(rows, part, strict=True):
                summed[row] = summed.get(row, 0) + value.double()
            record.append((t, summed))
    states = of.get_optimizer_state()
    for start, record, weight, state in zip(starts, records, of.split_embedding_weights(), states, strict=True):
        values, first, second = (torch.tensor(each) for each in adam(start, record, BETAS, EPS))
        torch.testing.assert_close(weight, values)
        torch.testing.assert_close(state["exp_avg"], first)
        torch.testing.assert_close(state["exp_avg_sq"], second)
        untouched = [row for row in range(len(start)) if not any(row in rows for _, rows in record)]
        assert untouched
        assert torch.equal(weight[untouched], start[untouched])


def test_the_bias_correction_is_that_of_the_step_that_was_set() -> None:
    of = table()
    start, gradient = of.split_embedding_weights()[0].clone(), drawn(1, seed=2)
    of.set_optimizer_step(4)
    step(of, ([2], []), gradient)
    values, _, _ = adam(start, [(5, {2: gradient[0].double()})], BETAS, EPS)
    torch.testing.assert_close(of.split_embedding_weights()[0], torch.tensor(values))


def test_without_ids_nothing_is_looked_up_and_nothing_moves() -> None:
    of = table()
    before = of.weights_host.clone()
    rows = of(torch.zeros(0, dtype=torch.int64), torch.zeros(5, dtype=torch.int64))
    assert rows.shape == (0, WIDTH)
    rows.backward(torch.zeros(0, WIDTH))
    assert torch.equal(of.weights_host, before)


def test_gradients_in_low_precision_are_widened() -> None:
    ours, theirs = table(), table()
    gradient = drawn(2, seed=3).bfloat16()
    ours.update(torch.tensor([1, 2]), gradient.float())
    rows = theirs(torch.tensor([1, 2]), torch.tensor([0, 1, 2, 2, 2])).bfloat16()
    rows.backward(gradient)
    assert torch.equal(ours.weights_host, theirs.weights_host)


def test_betas_and_eps_are_those_of_the_paper_unless_given() -> None:
    of = CpuAdamTable(
        [(3, WIDTH, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        optimizer=EmbOptimType.ADAM,
        pooling_mode=PoolingMode.NONE,
        device=torch.device("cpu"),
        learning_rate=RATE,
    )
    with torch.no_grad():
        of.weights_host.zero_()
    # Gradients of the size of eps, so that it counts; two steps, so that the betas do.
    gradients = [torch.tensor([[1e-8, -3e-8, 2e-9, 0.5]]) * factor for factor in (1.0, -0.3)]
    for gradient in gradients:
        of.update(torch.tensor([1]), gradient)
    steps = [(t, {1: gradient[0].double()}) for t, gradient in enumerate(gradients, start=1)]
    values, first, second = adam(torch.zeros(3, WIDTH), steps, (0.9, 0.999), 1e-8)
    torch.testing.assert_close(of.split_embedding_weights()[0], torch.tensor(values), rtol=1e-4, atol=1e-6)
    (state,) = of.get_optimizer_state()
    torch.testing.assert_close(state["exp_avg"], torch.tensor(first), rtol=1e-5, atol=0)
    torch.testing.assert_close(state["exp_avg_sq"], torch.tensor(second), rtol=1e-4, atol=0)


def test_what_it_can_not_update_is_refused() -> None:
    with pytest.raises(ValueError, match="is for Adam"):
        table(EmbOptimType.EXACT_SGD)
    with pytest.raises(ValueError, match=r"one width, got \[4, 8\]"):
        table(rows=[(3, 4), (3, 8)], pooling_mode=PoolingMode.SUM)


def test_torchrec_gets_it_for_adam_on_a_cpu_and_only_within_the_context() -> None:
    original = torchrec_kernels.SplitTableBatchedEmbeddingBagsCodegen
    with cpu_adam_tables():
        build = torchrec_kernels.SplitTableBatchedEmbeddingBagsCodegen
        assert type(table(build=build)) is CpuAdamTable
        assert type(table(EmbOptimType.EXACT_SGD, build=build)) is original
    assert torchrec_kernels.SplitTableBatchedEmbeddingBagsCodegen is original
    with contextlib.suppress(KeyError), cpu_adam_tables():
        raise KeyError
    assert torchrec_kernels.SplitTableBatchedEmbeddingBagsCodegen is original


def test_one_table_alone() -> None:
    of = table(rows=[(7, WIDTH)])
    ids = torch.tensor([6, 0, 3])
    assert torch.equal(of(ids, torch.tensor([0, 1, 3])), of.split_embedding_weights()[0][ids])


@pytest.mark.parametrize("device", [torch.device("cuda"), None])
def test_cuda_tables_have_an_adam_of_their_own(
    device: torch.device | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no device is named, FBGEMM takes the CPU."""
    asked = []
    for name in ("CpuAdamTable", "SplitTableBatchedEmbeddingBagsCodegen"):
        monkeypatch.setattr(cpu_adam, name, lambda *a, name=name, **k: asked.append((name, a, k)))
    given = {"optimizer": EmbOptimType.ADAM} | ({} if device is None else {"device": device})
    cpu_adam._table_for("specs", **given)
    name = "CpuAdamTable" if device is None else "SplitTableBatchedEmbeddingBagsCodegen"
    assert asked == [(name, ("specs",), given)]
