"""Graphs of both passes for other runtimes: torch.export, AOTInductor, ONNX, Triton Inference Server."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram, export, save

from unigrf_dist.errors import UserError
from unigrf_dist.serve.export.graphs import HistoryGraph, RankGraph
from unigrf_dist.serve.loaded import LoadedRun

Format = Literal["pt2", "aoti", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)
_MOST_USERS, _MOST_CANDIDATES = 4096, 65_536
# An ONNX file is one protobuf message, of less than 2 GiB, and holds the item vectors.
_ONNX_BYTES = 3 << 29
_ONNX_PACKAGES = ("onnx", "onnxscript")


@dataclass(frozen=True)
class Graph:
    """A pass with what an exporter has to know of it.

    Attributes:
        name: ``history`` or ``rank``.
        program: the traced pass.
        inputs, outputs: names and example tensors, in order.
        dynamic: names of the sizes of each input that vary, by dimension.
    """

    name: str
    program: ExportedProgram
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    dynamic: dict[str, dict[int, str]]


def refuse_unwritable(formats: Collection[str], run: LoadedRun) -> None:
    """Raise UserError where a format is unknown, or what writes it is not here."""
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"--formats {name}: allowed are {', '.join(FORMATS)}, with commas between them")
    compiler = os.environ.get("CXX", "g++")
    if "aoti" in formats and shutil.which(compiler) is None:
        raise UserError(f"--formats aoti: no {compiler} here, which compiles the graphs; install it, or take pt2")
    if "onnx" in formats:
        if absent := [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]:
            raise UserError(f"--formats onnx: no package {absent[0]}; pip install 'unigrf-dist[onnx]'")
        if (size := run.tables.items.nbytes) > _ONNX_BYTES:
            raise UserError(
                f"--formats onnx: the item table has {size:,} bytes, an ONNX file takes {_ONNX_BYTES:,}; take pt2"
            )


def write_formats(folder: Path, run: LoadedRun, formats: Collection[str]) -> None:
    """Write ``history`` and, if there are ranking tasks, ``rank`` in each of the formats.

    Args:
        folder: folder of the export.
        run: the run with the tables that the export holds.
        formats: of `FORMATS`.
    """
    if not formats:
        return
    with _quiet():
        for graph in _graphs(run):
            if "pt2" in formats:
                save(graph.program, folder / f"{graph.name}.pt2")
            if "aoti" in formats:
                package = str(folder / f"{graph.name}.aoti.pt2")
                torch._inductor.aoti_compile_and_package(graph.program, package_path=package)
            if "onnx" in formats:
                _write_onnx(folder, graph)


def _graphs(run: LoadedRun) -> Iterator[Graph]:
    most_events = run.config.data.max_events
    sizes: dict[str, Any] = {
        "users": Dim("users", min=1, max=_MOST_USERS),
        # With one event there is nothing to vary.
        "events": Dim("events", min=1, max=most_events) if most_events > 1 else None,
        "candidates": Dim("candidates", min=1, max=_MOST_CANDIDATES),
    }
    inputs = _example(run, users=3, events=min(5, most_events))
    history = HistoryGraph(run)
    named = dict(zip(("query", "keys", "values"), history(*inputs.values()), strict=True))
    by_event = {0: "users", 1: "events"}
    dynamic = {name: by_event if tensor.ndim == 2 else {0: "users"} for name, tensor in inputs.items()}
    dynamic |= {"user_features": {0: "users"}} if "user_features" in inputs else {}
    yield _graph("history", history, inputs, named, dynamic, sizes)
    if not run.tasks:
        return
    candidates = torch.zeros(3, 7, dtype=torch.int64)
    kept = {name: named[name] for name in ("keys", "values")}
    request = {name: inputs[name] for name in inputs if name not in ("item_ids", "behaviours")}
    ranked = {"candidates": candidates, **kept, **request}
    dynamic = {
        "candidates": {0: "users", 1: "candidates"},
        "keys": {1: "users", 2: "events"},
        "values": {1: "users", 2: "events"},
        **{name: dynamic[name] for name in request},
    }
    rank = RankGraph(run)
    yield _graph("rank", rank, ranked, {"logits": rank(*ranked.values())}, dynamic, sizes)


def _graph(
    name: str,
    module: torch.nn.Module,
    inputs: dict[str, Tensor],
    outputs: dict[str, Tensor],
    dynamic: dict[str, dict[int, str]],
    sizes: dict[str, Any],
) -> Graph:
    shapes = tuple({at: sizes[size] for at, size in dynamic[name].items()} for name in inputs)
    return Graph(name, export(module, tuple(inputs.values()), dynamic_shapes=shapes), inputs, outputs, dynamic)


def _example(run: LoadedRun, *, users: int, events: int) -> dict[str, Tensor]:
    """Inputs of the history graph by name, with these sizes, all 2 or more: a graph would hold a 1 as it is."""
    zeros = torch.zeros(users, events, dtype=torch.int64)
    times = torch.arange(events).expand(users, -1).contiguous()
    full = torch.full((users,), events)
    found = {
        "item_ids": zeros,
        "behaviours": zeros.clone(),
        "times": times,
        "lengths": full,
        "asked": full.clone(),
    }
    if number := len(run.config.model.user_features):
        found["user_features"] = torch.zeros(users, number, dtype=torch.int64)
    return found


def _write_onnx(folder: Path, graph: Graph) -> None:
    program: Any = torch.onnx.export(
        graph.program,
        dynamo=True,
        verbose=False,
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
    )
    file = folder / f"{graph.name}.onnx"
    program.save(str(file))
    place = folder / "triton" / graph.name
    (place / "1").mkdir(parents=True)
    # The same file under both names: tables inside are not stored twice.
    os.link(file, place / "1" / "model.onnx")
    (place / "config.pbtxt").write_text(_triton_config(graph), encoding="utf-8")


def _triton_config(graph: Graph) -> str:
    """Configuration of the model in Triton Inference Server; every size that varies is -1."""
    of_outputs = {"query": {0}, "keys": {1, 2}, "values": {1, 2}, "logits": {0, 1}}
    lines = [f'name: "{graph.name}"', 'backend: "onnxruntime"', "max_batch_size: 0"]
    for kind, tensors in (("input", graph.inputs), ("output", graph.outputs)):
        for name, tensor in tensors.items():
            varies = set(graph.dynamic.get(name, {})) | of_outputs.get(name, set())
            dims = ", ".join("-1" if at in varies else str(size) for at, size in enumerate(tensor.shape))
            data_type = "TYPE_INT64" if tensor.dtype == torch.int64 else "TYPE_FP32"
            lines.append(f'{kind} [{{ name: "{name}", data_type: {data_type}, dims: [{dims}] }}]')
    return "\n".join(lines) + "\n"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks on packages that they could also have used."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
