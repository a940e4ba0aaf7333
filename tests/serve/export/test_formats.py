"""Graphs for other runtimes against packed tokens and jagged attention, which evaluation is computed with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.serve.drawn_run import write_drawn_run
from unigrf_dist.data import Dataset, open_dataset
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.errors import UserError
from unigrf_dist.model.request_pass import rank_candidates, read_histories
from unigrf_dist.serve.export.formats import refuse_unwritable
from unigrf_dist.serve.export.graphs import HistoryGraph, RankGraph
from unigrf_dist.serve.export.read import load_export
from unigrf_dist.serve.export.write import export_run
from unigrf_dist.serve.loaded import LoadedRun
from unigrf_dist.serve.loading import load_run
from unigrf_dist.synthetic import synthesize

CASES: dict[str, dict[str, Any]] = {
    "hstu": {},
    "hstu_features_visible_times": {
        "model__item_features": ["group"],
        "model__user_features": ["taste"],
        "model__query_time_visible": True,
    },
    "llama_shared_keys": {
        "model__backbone": "llama",
        "model__key_heads": 1,
        "model__behaviours_carry_items": True,
    },
}
SIZES = [(1, 1), (1, 200), (64, 7)]
NUM_ITEMS = 40

ELSEWHERE = """
import sys
import numpy as np, onnxruntime, torch
folder, given = sys.argv[1:]
torch.set_num_threads(1)
programs = {name: torch.export.load(f"{folder}/{name}.pt2").module() for name in ("history", "rank")}
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
places = {"history": f"{folder}/history.onnx", "rank": f"{folder}/triton/rank/1/model.onnx"}
sessions = {name: onnxruntime.InferenceSession(place, options) for name, place in places.items()}
def by_program(name, inputs):
    answer = programs[name](*map(torch.from_numpy, inputs.values()))
    return [each.numpy() for each in (answer if isinstance(answer, tuple) else (answer,))]
def by_onnx(name, inputs):
    return sessions[name].run(None, inputs)
worst = 0.0
stored = np.load(given)
for size in range(3):
    case = {key.split("/")[1]: stored[key] for key in stored if key.startswith(f"{size}/")}
    history = {name: case[name] for name in ("item_ids", "behaviours", "times", "lengths", "asked")}
    for run in (by_program, by_onnx):
        query, keys, values = run("history", history)
        request = {name: case[name] for name in ("times", "lengths", "asked")}
        (logits,) = run("rank", {"candidates": case["candidates"], "keys": keys, "values": values, **request})
        unit = query / np.linalg.norm(query, axis=1, keepdims=True)
        expected = case["query"] / np.linalg.norm(case["query"], axis=1, keepdims=True)
        worst = max(worst, abs(unit - expected).max())
        worst = max(worst, abs(1 / (1 + np.exp(-logits)) - 1 / (1 + np.exp(-case["logits"]))).max())
assert "unigrf_dist" not in sys.modules and "unigrf_kernels" not in sys.modules
print(worst)
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("formats") / "set"
    synthesize(out, num_users=20, num_items=NUM_ITEMS, mean_length=8)
    return open_dataset(out)


def request(users: int, events: int, *, features: int = 0) -> dict[str, Tensor]:
    """Histories of up to ``events`` events, the first of all of them, and candidates."""
    generator = torch.Generator().manual_seed(users + events)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    lengths = 1 + draw(events, users)
    lengths[0] = events
    times = draw(10**6, users, events).sort(1).values + 1_600_000_000
    found = {
        "item_ids": draw(NUM_ITEMS, users, events),
        "behaviours": draw(5, users, events),
        "times": times,
        "lengths": lengths,
        "asked": times.amax(1) + draw(10**5, users),
    }
    return found | ({"user_features": draw(3, users, features)} if features else {})


def jagged(run: LoadedRun, given: dict[str, Tensor], candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and logits by packed tokens."""
    rows = torch.arange(given["times"].shape[1]) < given["lengths"][:, None]
    batch = JaggedBatch(
        *(given[name][rows] for name in ("item_ids", "behaviours", "times")),
        torch.cat([torch.zeros(1, dtype=torch.int64), given["lengths"].cumsum(0)]),
        torch.arange(len(rows)),
        given.get("user_features"),
    )
    kept = read_histories(run.model, run.tables.events(batch), batch, given["asked"])
    vectors = run.tables.candidates(candidates, batch)
    return kept.queries, rank_candidates(run.model, kept, vectors, given["asked"])


@pytest.mark.parametrize("case", CASES)
def test_padded_tokens_give_what_packed_ones_give(dataset: Dataset, case: str, tmp_path: Path) -> None:
    write_drawn_run(tmp_path / "run", dataset, **CASES[case])
    run = load_run(tmp_path / "run")
    history, rank = HistoryGraph(run), RankGraph(run)
    for users, events in ((1, 1), (5, 12)):
        given = request(users, events, features=len(run.config.model.user_features))
        candidates = torch.randint(NUM_ITEMS, (users, 9), generator=torch.Generator().manual_seed(1))
        queries, keys, values = history(*given.values())
        kept = [given[name] for name in given if name not in ("item_ids", "behaviours")]
        logits = rank(candidates, keys, values, *kept)
        expected_queries, expected_logits = jagged(run, given, candidates)
        assert torch.allclose(queries, expected_queries, rtol=1e-5, atol=1e-5)
        assert torch.allclose(logits, expected_logits, rtol=1e-5, atol=1e-5)


def test_programs_and_onnx_answer_in_a_process_without_this_package(dataset: Dataset, tmp_path: Path) -> None:
    write_drawn_run(tmp_path / "run", dataset, model__blocks=1, data__max_events=200)
    export_run(tmp_path / "run", tmp_path / "bundle", formats=["pt2", "onnx"])
    run = load_export(tmp_path / "bundle")
    arrays = {}
    for number, (users, events) in enumerate(SIZES):
        given = request(users, events)
        given["candidates"] = torch.randint(NUM_ITEMS, (users, 1 + number))
        query, logits = jagged(run, given, given["candidates"])
        given |= {"query": query, "logits": logits}
        arrays |= {f"{number}/{name}": tensor.numpy() for name, tensor in given.items()}
    np.savez(tmp_path / "given.npz", **arrays)
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        ELSEWHERE,
        str(tmp_path / "bundle"),
        str(tmp_path / "given.npz"),
    ]
    result = subprocess.run(words, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) <= 1e-5
    config = (tmp_path / "bundle" / "triton" / "rank" / "config.pbtxt").read_text()
    assert 'output [{ name: "logits", data_type: TYPE_FP32, dims: [-1, -1, 2] }]' in config
    assert 'input [{ name: "keys", data_type: TYPE_FP32, dims: [1, -1, -1, 2, 2, 8] }]' in config


def test_a_format_that_cannot_be_written_is_refused_before_anything(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_drawn_run(tmp_path / "run", dataset)
    with pytest.raises(UserError, match="--formats onxx: allowed are pt2, aoti, onnx"):
        export_run(tmp_path / "run", tmp_path / "out", formats=["onxx"])
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="--formats aoti: no no-such-compiler here"):
        refuse_unwritable(["aoti"], load_run(tmp_path / "run"))
    assert not (tmp_path / "out").exists()
