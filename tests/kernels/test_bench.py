"""The benchmark: what it counts, what it refuses to time, and that its implementations compute the same."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unigrf_kernels.bench import __main__ as command
from unigrf_kernels.bench import runner, timing
from unigrf_kernels.bench.cases import jagged_attention as attention
from unigrf_kernels.bench.cases import joint_loss as loss
from unigrf_kernels.bench.cases.jagged_attention_inputs import session_gaps
from unigrf_kernels.bench.catalogue import MOST_TELLING, OPERATORS, find_tasks, most_telling_first
from unigrf_kernels.bench.ceilings import Ceilings
from unigrf_kernels.bench.implementations import compiled
from unigrf_kernels.bench.report import format_table, to_json
from unigrf_kernels.bench.task import Check, Implementation, Operands, Result, Task, Work

CPU = torch.device("cpu")
CEILINGS = Ceilings(tflops=2.0, gb_per_second=10.0, dtype="float32", gemm_size=8, copy_bytes=8)


def double(x: Tensor) -> Tensor:
    return 2 * x


def task(*implementations: Implementation, bound: str = "copy") -> Task:
    x = torch.ones(1000, requires_grad=True)
    return Task(
        "doubling",
        "1000",
        lambda: Operands(x, [x], [torch.ones(1000)]),
        implementations,
        {"forward": Work(6000, 8000), "step": Work(0, 24000)},
        bound,
    )


def run(*implementations: Implementation, bound: str = "copy") -> list[Result]:
    return list(runner.run_task(task(*implementations, bound=bound), CEILINGS, CPU, seconds=0.01))


class FixedStopwatch:
    """Every stage takes half a second forward and one second backward, and is really run."""

    def __init__(self, _: torch.device) -> None:
        self.rounds = 0

    def run(self, stages: Any) -> None:
        for stage in stages:
            stage()
        self.rounds += 1

    def seconds(self) -> list[list[float]]:
        return [[0.5] * self.rounds, [1.0] * self.rounds]

    def host_seconds(self) -> list[list[float]]:
        return [[0.125] * self.rounds, [0.25] * self.rounds]


def test_numbers_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """6000 operations and 8000 bytes in 0.5 s, 24 000 bytes in 1.5 s, ceilings of 2 TFLOP/s and 10 GB/s."""
    monkeypatch.setattr(runner, "stopwatch", FixedStopwatch)
    forward, step = run(Implementation("unigrf", double))
    assert (forward.phase, step.phase) == ("forward", "step")
    assert forward.median_seconds == 0.5
    assert forward.spread_seconds == (0.5, 0.5)
    assert forward.tflops == pytest.approx(12e-9)
    assert forward.gb_per_second == pytest.approx(16e-6)
    assert forward.fraction == pytest.approx(1.6e-6)
    assert step.median_seconds == 1.5
    assert (forward.host_seconds, step.host_seconds) == (0.125, 0.375)
    assert step.gb_per_second == pytest.approx(16e-6)
    by_gemm = run(Implementation("unigrf", double), bound="gemm")
    assert by_gemm[0].fraction == pytest.approx(6e-9)


def test_spread_is_of_the_middle_eight_tenths() -> None:
    assert runner._percentiles([float(number) for number in range(11)]) == (1.0, 9.0)


def test_implementations_run_in_turns() -> None:
    calls: list[str] = []

    def noting(name: str) -> Implementation:
        return Implementation(name, lambda x: (calls.append(name), 2 * x)[1])

    run(noting("a"), noting("b"))
    timed = calls[4:]  # each once for the comparison and once for memory
    assert timed[:6] == ["a", "b"] * 3


def test_a_implementation_that_computes_something_else_is_not_timed() -> None:
    results = run(Implementation("unigrf", double), Implementation("wrong", lambda x: 2.1 * x))
    (wrong,) = [result for result in results if result.implementation == "wrong"]
    assert wrong.refusal.startswith("result 0 differs by 5.0e-02")
    assert wrong.median_seconds == 0


def test_a_wrong_gradient_shows_too() -> None:
    results = run(Implementation("unigrf", double), Implementation("wrong", lambda x: 2 * x.detach() + 0 * x))
    assert results[-1].refusal.startswith("result 1 differs by 1.0e+00")


def test_nan_is_no_agreement() -> None:
    results = run(Implementation("unigrf", double), Implementation("nan", lambda x: x * torch.nan))
    assert results[-1].refusal == "result 0 differs by nan"


def test_judged_by_the_float64_truth_where_a_task_has_it() -> None:
    """The first implementation is wrong, and so is what agrees with it; only the other one is timed."""
    small = torch.ones(3, requires_grad=True)
    truth = [torch.full((3,), 2.0, dtype=torch.float64)] * 2
    judged = replace(
        task(
            Implementation("wrong", lambda x: 3 * x),
            Implementation("same", lambda x: 3 * x),
            Implementation("right", double),
        ),
        check=lambda: Check(Operands(small, [small], [torch.ones(3)]), truth),
    )
    results = {result.implementation: result for result in runner.run_task(judged, CEILINGS, CPU, seconds=0.01)}
    assert results["wrong"].refusal == results["same"].refusal == "result 0 differs by 5.0e-01"
    assert results["right"].median_seconds > 0


def test_a_task_whose_operands_do_not_fit_is_listed() -> None:
    def make() -> Operands:
        raise torch.OutOfMemoryError("CUDA out of memory")

    broken = replace(task(Implementation("unigrf", double), Implementation("other", double)), make=make)
    results = list(runner.run_task(broken, CEILINGS, CPU, seconds=0.01))
    assert [result.refusal for result in results] == ["OutOfMemoryError: CUDA out of memory"] * 2


def test_one_that_fails_while_it_is_timed_leaves_the_others() -> None:
    calls: list[int] = []

    def fail_later(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("device-side failure")
        return 2 * x

    results = run(Implementation("unigrf", double), Implementation("fragile", fail_later))
    assert results[-1].refusal == "RuntimeError: device-side failure"
    assert results[0].median_seconds > 0


def test_dynamo_forgets_between_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._dynamo

    resets: list[int] = []
    monkeypatch.setattr(torch._dynamo, "reset", lambda: resets.append(1))
    run(Implementation("unigrf", double))
    run(Implementation("unigrf", double))
    assert len(resets) == 2


def test_a_budget_takes_the_published_shapes_first() -> None:
    tasks = find_tasks(list(OPERATORS), "", torch.device("cuda"), torch.bfloat16, compiled=False)
    ordered = most_telling_first(tasks)
    assert sorted(map(id, tasks)) == sorted(map(id, ordered))
    assert [f"{found.operator} {found.shape}" for found in ordered[: len(MOST_TELLING)]] == list(MOST_TELLING)


def test_a_spent_budget_leaves_what_was_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tasks = [
        task(Implementation("unigrf torch", double)),
        replace(task(Implementation("unigrf torch", double)), shape="2"),
    ]
    monkeypatch.setattr(command, "find_tasks", lambda *_: tasks)
    monkeypatch.setattr(command, "measure_ceilings", lambda *_: CEILINGS)
    target = tmp_path / "out.json"
    assert command.main(["--device", "cpu", "--seconds", "0", "--budget", "1e-9", "--json", str(target)]) == 0
    assert not target.exists()
    monkeypatch.setattr(command, "run_task", interrupted_at_the_second(command.run_task))
    with pytest.raises(KeyboardInterrupt):
        command.main(["--device", "cpu", "--seconds", "0", "--json", str(target)])
    assert {result["shape"] for result in json.loads(target.read_text())["results"]} == {"1000"}


def interrupted_at_the_second(run_task: Any) -> Any:
    def run_first(found: Task, *arguments: Any) -> Any:
        if found.shape == "2":
            raise KeyboardInterrupt
        return run_task(found, *arguments)

    return run_first


def test_session_gaps_are_those_of_movielens() -> None:
    """Quartiles of the data: 13, 19 and 29 seconds; one gap in a hundred is longer than 5.4 days."""
    gaps = session_gaps(200_000, torch.Generator().manual_seed(0)).double()
    for share, seconds in ((0.25, 13), (0.5, 19), (0.75, 29)):
        assert gaps.quantile(share).item() == pytest.approx(seconds, abs=2)
    assert (gaps > 465_431).double().mean().item() == pytest.approx(0.01, abs=0.003)


def test_randomness_that_differs_by_design_is_timed() -> None:
    results = run(Implementation("unigrf", double), Implementation("random", lambda x: 3 * x, comparable=False))
    assert [result.refusal for result in results] == [""] * 4


def test_what_fails_is_listed_with_its_reason() -> None:
    def fail(_: Tensor) -> Tensor:
        raise NotImplementedError("no kernel here\nmore")

    results = run(
        Implementation("unigrf", double), Implementation("other", fail), Implementation("third", refusal="too old")
    )
    assert [result.refusal for result in results[2:]] == ["NotImplementedError: no kernel here", "too old"]
    table = format_table(results)
    assert "other" in table
    assert "not timed: NotImplementedError: no kernel here" in table


def test_what_does_not_fit_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "free_bytes", lambda _: 10 * 2**30)
    results = run(Implementation("unigrf", double), Implementation("big", double, bytes_needed=9 * 2**30))
    assert results[-1].refusal == "needs about 9.0 GiB, 8.0 GiB may be used"
    results = run(Implementation("unigrf", double), Implementation("big", double, bytes_needed=8 * 2**30))
    assert results[-1].refusal == ""


def test_peak_memory_by_hand() -> None:
    """Two buffers of 4 MiB live together, then one of 2 MiB alone."""

    def action() -> None:
        first = torch.zeros(2**20)
        second = first + 1
        del first, second
        torch.zeros(2**19)

    assert timing.peak_bytes(action, CPU) == pytest.approx(8 * 2**20, rel=0.01)


def test_cpu_stopwatch_times_stages_apart() -> None:
    def busy(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    watch = timing.CpuStopwatch()
    watch._clock = time.perf_counter
    watch.run([lambda: busy(0.02), lambda: busy(0.005)])
    (first,), (second,) = watch.seconds()
    assert first >= 0.02
    assert second >= 0.005


def test_compiled_implementations_are_named_even_where_they_are_not_timed() -> None:
    assert compiled("eager, compiled", double, enabled=False).refusal.startswith(
        "compiled implementations are timed"
    )


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_operator_has_shapes_with_unique_names(device: str) -> None:
    tasks = find_tasks(list(OPERATORS), "", torch.device(device), torch.bfloat16, compiled=False)
    names = [(task.operator, task.shape) for task in tasks]
    assert len(set(names)) == len(names)
    assert {task.operator for task in tasks} == {
        "jagged_attention", "joint_loss", "norm_project_silu", "gated_norm_dropout",
        "rms_norm", "swiglu", "rotary", "seeded_dropout",
    }  # fmt: skip
    assert all(
        task.implementations[0].name == ("unigrf torch" if device == "cpu" else "unigrf triton") for task in tasks
    )
    assert all(len(task.implementations) > 1 for task in tasks)


def test_shapes_are_chosen_by_words() -> None:
    tasks = find_tasks(["jagged_attention"], "4x128 T=4096 zipf", torch.device("cuda"), torch.bfloat16, False)
    assert tasks
    assert all("4x128 T=4096" in task.shape and "zipf" in task.shape for task in tasks)


def test_published_shapes_are_listed() -> None:
    tasks = find_tasks(["jagged_attention", "joint_loss"], "", torch.device("cuda"), torch.bfloat16, False)
    names = " ".join(task.shape for task in tasks)
    for heads in ("4x64", "4x128", "4x256", "8x128"):
        for shape in ("T=128 B=512 uniform", "T=8192 B=32 uniform", "T=8192 B=32 zipf"):
            assert f"{heads} {shape}" in names
    for shape in ("32768 rows x 128 negatives", "131072 rows x 65536 negatives"):
        assert shape in names


def test_loss_work_by_hand() -> None:
    """100 rows, 30 negatives, width 8: three products of 2 * 100 * 30 * 8 operations."""
    work = loss._task(100, 30, 8, CPU, torch.float32, False).work["step"]
    assert work.flops == 144_000
    # hidden of both tasks, positives, negatives and their gradients: 2 * (300 + 30) * 8 * 4 bytes
    assert work.num_bytes == 21_120


@pytest.mark.parametrize("implementation", [loss.eager, loss.chunked_eager], ids=["eager", "chunked"])
def test_loss_implementations_compute_the_same(implementation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "NUM_ITEMS", 40)  # many accidental hits
    monkeypatch.setattr(loss, "_CHUNK_ROWS", 7)
    inputs = loss.make_inputs(20, 30, 8, CPU, torch.float64)
    leaves = [inputs.hidden, inputs.positives, inputs.negatives, inputs.head_weight, inputs.head_bias]
    expected, actual = loss._this_package(inputs, "reference"), implementation(inputs)
    for one, other in zip(expected, actual, strict=True):
        assert one.item() == pytest.approx(other.item(), rel=1e-6)
    expected_grads, actual_grads = (torch.autograd.grad(sum(pair), leaves) for pair in (expected, actual))
    for one, other in zip(expected_grads, actual_grads, strict=True):
        # Implementations normalise in fp32, as their users do.
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_padded_softmax_implementation_computes_the_same() -> None:
    case = replace(attention.cpu_cases()[-1], lengths=(3, 1, 9))
    inputs = case.inputs(torch.float64)
    torch.testing.assert_close(attention.sdpa_padded(inputs), attention._this_package(inputs, "reference"))


@pytest.mark.parametrize("operator", ["hstu_layer", "llama_layer", "dropout"])
def test_implementations_of_the_layer_pieces_agree(operator: str) -> None:
    """The comparison that runs before timing, on the shapes of the CPU."""
    for found in find_tasks([operator], "27000", CPU, torch.float32, compiled=False):
        operands = found.make()
        first, *others = [
            implementation
            for implementation in found.implementations
            if implementation.run and implementation.comparable
        ]
        expected = runner._results(first, operands)
        for other in others:
            assert runner._disagreement(runner._results(other, operands), expected) == ""


def test_json_carries_the_environment() -> None:
    document = json.loads(to_json(run(Implementation("unigrf", double)), {"device": "a CPU"}, CEILINGS))
    assert document["environment"] == {"device": "a CPU"}
    assert document["ceilings"]["tflops"] == 2.0
    assert [result["phase"] for result in document["results"]] == ["forward", "step"]


def test_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, picture = tmp_path / "out.json", tmp_path / "out.png"
    status = command.main(
        ["--device", "cpu", "--op", "dropout", "--shapes", "27000", "--seconds", "0", "--json", str(target),
         "--plot", str(picture)]
    )  # fmt: skip
    assert status == 0
    printed = capsys.readouterr().out
    assert "CPU path, 1 threads; says nothing about a GPU" in printed
    assert "F.dropout" in printed
    environment = json.loads(target.read_text())["environment"]
    assert {"device", "torch", "triton", "date", "commit"} <= environment.keys()
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_command_fails_when_an_operator_of_this_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("broken")

    monkeypatch.setattr(command, "find_tasks", lambda *_: [task(Implementation("unigrf torch", fail))])
    assert command.main(["--device", "cpu", "--op", "dropout"]) == 1


def test_command_lists_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--device", "cpu", "--op", "llama_layer", "--list"]) == 0
    assert "rotary: 27000 tokens 2x32" in capsys.readouterr().out
    assert command.main(["--device", "cpu", "--shapes", "nothing-like-this"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--op", "softmax"], "invalid choice: 'softmax'"),
        (["--json", "no/such/folder/out.json"], "does not exist"),
    ],
)
def test_bad_requests(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        command.main(arguments)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_plot_without_matplotlib_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    with pytest.raises(SystemExit):
        command.main(["--plot", "out.png"])
    assert "pip install matplotlib" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_no_silent_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--device", "cuda"])
    assert "needs a GPU that torch can see" in capsys.readouterr().err
