"""Difficult inputs, the float64 oracle, and the error that an implementation may make.

Every implementation of ``joint_loss`` is tested on the inputs of this file and on no others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from unigrf_kernels.ops.joint_loss import JointLoss, joint_loss

FORWARD_FACTOR, BACKWARD_FACTOR = 2, 5
DIFFERENTIABLE = ("hidden", "positives", "negatives", "user_negatives", "head_weight", "head_bias")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# The oracle subtracts logits of about 100: a loss below this is noise in float64 too.
ORACLE_ERROR = 1e-13
# Upstream factors that tell the tasks apart.
RETRIEVAL_SCALE, RANKING_SCALE = 0.75, 3.0

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """Shapes and options of one call; letters as in the operator's folder."""

    name: str = "drawn"
    T: int = 40
    P: int = 17
    K: int = 37
    D: int = 20
    R: int = 13
    A: int = 2
    U: int = 4
    V: int = 5
    M: int = 0
    """0: no per-user negatives."""
    normalize: bool = True
    temperature: float = 0.07
    log_q: bool = False
    mask: bool = False
    weights: bool = False
    num_ids: int = 25
    """Ids are drawn below this: few of them mean many accidental hits."""
    num_rows: int | None = None
    """Hidden rows that pairs and ranking examples are drawn from; None: all. Few of them mean shared rows."""

    def __str__(self) -> str:
        return self.name


EVERYTHING = Case("everything", log_q=True, mask=True, weights=True, M=3, A=3)

CASES = [
    Case("plain"),
    EVERYTHING,
    Case("everything-raw", log_q=True, mask=True, weights=True, M=3, normalize=False, temperature=0.7),
    Case("cold", temperature=0.01),
    Case("cold-everything", temperature=0.015, log_q=True, mask=True, weights=True, M=2),
    Case("off-tile", P=67, K=131, D=50, R=33, T=140),
    Case("off-tile-mask", P=35, K=97, D=33, R=17, M=5, mask=True),
    Case("one-of-each", T=1, P=1, K=1, D=2, R=1, A=1, U=1, V=1, M=1, mask=True),
    Case("no-pairs", P=0, M=2, mask=True, weights=True),
    Case("no-ranking", R=0),
    Case("no-negatives", K=0, mask=True),
    Case("only-user-negatives", K=0, M=4),
    Case("no-rows-at-all", T=0, P=0, R=0, K=3, M=2, log_q=True, weights=True),
    Case("one-id", num_ids=1, M=2),
    Case("shared-rows", num_rows=5, weights=True),
    Case("one-shared-row", num_rows=1, P=40, R=20),
    Case("sixteen-tasks", A=16, R=35, D=16),
    Case("one-user", U=1, V=1, M=4, mask=True),
    Case("many-users", U=30, V=100, M=1, mask=True),
]


def drawn_cases(max_size: int) -> st.SearchStrategy[Case]:
    """Cases up to ``max_size`` pairs and twice as many negatives."""
    flag = st.booleans()
    cases = st.builds(
        Case,
        T=st.integers(1, 2 * max_size),
        P=st.integers(0, max_size),
        K=st.one_of(st.sampled_from((0, 1, 31, 32, 33)), st.integers(0, 2 * max_size)),
        D=st.one_of(st.sampled_from((2, 15, 16, 17, 64)), st.integers(2, 70)),
        R=st.integers(0, max_size),
        A=st.integers(1, 4),
        U=st.integers(1, 5),
        M=st.integers(0, 3),
        normalize=flag,
        temperature=st.sampled_from((0.02, 0.07, 1.0)),
        log_q=flag,
        mask=flag,
        weights=flag,
        num_ids=st.sampled_from((1, 5, 200)),
        num_rows=st.sampled_from((None, 3)),
    )
    return cases.map(_warm_up_raw).map(lambda case: replace(case, V=case.U + 1))


def _warm_up_raw(case: Case) -> Case:
    """Inner products of raw vectors are larger than cosines; as cold as those they would all saturate."""
    return case if case.normalize else replace(case, temperature=10 * case.temperature)


def make_inputs(case: Case, dtype: torch.dtype = torch.float32, seed: int = 0) -> Inputs:
    """Arguments of one call on ``DEVICE``; vectors in ``dtype``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(DEVICE, dtype)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device="cpu").to(DEVICE)

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(max(high, 1), shape, generator=generator, device="cpu").to(DEVICE)

    rows = case.T if case.num_rows is None else min(case.num_rows, case.T)
    labels = (uniform(case.R, case.A) > 0.5).float()
    labels[uniform(case.R, case.A) < 0.2] = torch.nan
    inputs: Inputs = {
        "hidden": normal(case.T, case.D),
        "retrieval_rows": integers(rows, case.P),
        "positives": normal(case.P, case.D),
        "positive_ids": integers(case.num_ids, case.P),
        "negatives": normal(case.K, case.D),
        "negative_ids": integers(case.num_ids, case.K),
        "ranking_rows": integers(rows, case.R),
        "head_weight": normal(case.A, case.D),
        "head_bias": normal(case.A),
        "labels": labels,
        "temperature": case.temperature,
        "normalize": case.normalize,
    }
    if case.weights:
        weights = uniform(case.P)
        weights[::4] = 0
        inputs |= {"retrieval_weights": weights, "task_weights": 0.5 + uniform(case.A)}
    if case.log_q:
        inputs |= {"positive_log_q": -6 * uniform(case.P), "negative_log_q": -6 * uniform(case.K)}
    if case.M:
        inputs["user_negatives"] = normal(case.U, case.M, case.D)
        inputs["user_negative_ids"] = integers(case.num_ids + 1, case.U, case.M) - 1
    if case.mask:
        size = (case.V, -(-case.K // 32))
        words = torch.randint(-(2**31), 2**31, size, generator=generator, device="cpu")
        words[0] = -1  # all bits set: the pairs of the first row see none of the shared negatives
        inputs["negative_mask"] = words.to(DEVICE, torch.int32)
        inputs["negative_mask_rows"] = integers(case.V, case.P)
    if case.M:
        inputs["retrieval_users"] = integers(case.U, case.P)
    return inputs


def to_float64(inputs: Inputs) -> Inputs:
    """The same values, to the last bit, in float64."""
    return {
        name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }


def run(
    inputs: Inputs, implementation: str | Callable[..., JointLoss], needed: tuple[str, ...] = DIFFERENTIABLE
) -> dict[str, Tensor]:
    """All outputs by name, and ``grad <input>`` of 0.75 retrieval_sum + 3 ranking_sum for ``needed``."""
    leaves = {name: inputs[name].detach().clone().requires_grad_() for name in needed if name in inputs}
    arguments = {**inputs, **leaves}
    if callable(implementation):
        loss = implementation(**arguments)
    else:
        loss = joint_loss(**arguments, implementation=implementation)
    if leaves:
        (RETRIEVAL_SCALE * loss.retrieval_sum + RANKING_SCALE * loss.ranking_sum).backward()
    results = {name: value.detach() for name, value in loss._asdict().items()}
    for name, leaf in leaves.items():
        results["grad " + name] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return results


def assert_as_exact_as_plain_pytorch(
    inputs: Inputs,
    implementation: str | Callable[..., JointLoss],
    needed: tuple[str, ...] = DIFFERENTIABLE,
) -> None:
    """Each result errs at most 2 times (gradients and their norms 5 times) as much as plain PyTorch and a band.

    Plain PyTorch is the definition in the inputs' dtype; the band is one rounding: what the exact result moves by
    when every input and the result are rounded once.

    Plain PyTorch is run on several orders of the ``D`` columns, which are all the same problem: on
    a single one it may be exact by luck.
    """
    oracle = run(to_float64(inputs), "reference", needed)
    actual = run(inputs, implementation, needed)
    plain = [_run_with_columns_permuted(inputs, needed, seed) for seed in range(4)]
    bands = _rounding_bands(inputs, oracle, needed)
    assert actual.keys() == oracle.keys()
    for name, exact in oracle.items():
        assert actual[name].shape == exact.shape, name
        is_gradient = name.startswith("grad ") or name.endswith("_sq_norm")
        factor = BACKWARD_FACTOR if is_gradient else FORWARD_FACTOR
        allowed = factor * (max(_error(results[name], exact) for results in plain) + bands[name]) + ORACLE_ERROR
        error = _error(actual[name], exact)
        assert error <= allowed, f"{name}: error {error:.3g}, allowed {allowed:.3g}"


def _run_with_columns_permuted(inputs: Inputs, needed: tuple[str, ...], seed: int) -> dict[str, Tensor]:
    width = inputs["hidden"].shape[1]
    order = torch.randperm(width, generator=torch.Generator().manual_seed(seed), device="cpu").to(DEVICE)
    vectors = [name for name in DIFFERENTIABLE if name in inputs and name != "head_bias"]
    results = run({**inputs, **{name: inputs[name][..., order] for name in vectors}}, "reference", needed)
    for name in results.keys() & {"grad " + name for name in vectors}:
        results[name] = results[name][..., order.argsort()]
    return results


def _rounding_bands(inputs: Inputs, oracle: dict[str, Tensor], needed: tuple[str, ...]) -> dict[str, float]:
    unit = torch.finfo(inputs["hidden"].dtype).eps / 2
    bands = {name: unit * _largest(exact) for name, exact in oracle.items()}
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        rounded = to_float64(inputs)
        for name, value in rounded.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                up = torch.randint(2, value.shape, generator=generator, device="cpu").to(DEVICE)
                rounded[name] = value * (1 + unit * (2 * up - 1))
        moved = run(rounded, "reference", needed)
        for name, exact in oracle.items():
            bands[name] = max(bands[name], unit * _largest(exact) + _error(moved[name], exact))
    return bands


def _error(actual: Tensor, exact: Tensor) -> float:
    """Largest error; infinite where one is a number and the other is not."""
    actual, exact = actual.double(), exact.double()
    if not torch.equal(actual.isnan(), exact.isnan()):
        return float("inf")
    return _largest(torch.where(exact.isnan(), 0.0, actual - exact))


def _largest(values: Tensor) -> float:
    return float(values.nan_to_num().abs().max()) if values.numel() else 0.0
