"""Command line: `python -m unigrf_kernels.bench`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from .catalogue import OPERATORS, find_tasks, most_telling_first
from .ceilings import measure_ceilings
from .plot import draw
from .report import device_state, environment, format_table, heading, to_json
from .runner import run_task
from .task import Result

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def main(arguments: Sequence[str] | None = None) -> int:
    """Time, print, write. Exit status 1 if an operator of this package failed, 2 for a bad request."""
    options = _parse(arguments)
    device = torch.device(options.device)
    if device.type == "cpu" and options.threads:
        torch.set_num_threads(options.threads)
    dtype = DTYPES[options.dtype or ("bf16" if device.type == "cuda" else "fp32")]
    tasks = find_tasks(options.op or list(OPERATORS), options.shapes, device, dtype, options.compiled)
    if options.list or not tasks:
        print("\n".join(f"{task.operator}: {task.shape}" for task in tasks) or "no shape matches")
        return 0 if tasks else 2
    begin = time.perf_counter()
    if options.budget:
        tasks = most_telling_first(tasks)
    where, ceilings = environment(device), measure_ceilings(device, dtype)
    print(heading(where, ceilings), flush=True)
    results: list[Result] = []
    for number, task in enumerate(tasks, start=1):
        if options.budget and time.perf_counter() - begin > options.budget:
            print(f"{options.budget:g} s are spent: {len(tasks) - number + 1} shapes are left", file=sys.stderr)
            break
        print(f"{number} / {len(tasks)} {task.operator} {task.shape}", file=sys.stderr, flush=True)
        results.extend(run_task(task, ceilings, device, options.seconds))
        # After every task: a run that is cut off leaves what it has measured.
        where["device_state"].append(device_state(device))
        if options.json:
            _replace(options.json, to_json(results, where, ceilings))
    if options.plot:
        draw(results, f"{where['device']}, {where['date'][:10]}, {where['commit']}", options.plot)
    print(format_table(results))
    return int(any(result.refusal and result.implementation.startswith("unigrf") for result in results))


def _replace(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m unigrf_kernels.bench", description="Microbenchmarks.")
    here = "cuda" if torch.cuda.is_available() else "cpu"
    add = parser.add_argument
    add("--op", action="append", choices=list(OPERATORS), help="operator; may be repeated")
    add("--shapes", default="", help="words that a shape's name must all contain, as in '4x128 zipf'")
    add("--device", choices=["cuda", "cpu"], default=here)
    add("--dtype", choices=list(DTYPES), help="default: bf16 on a GPU, fp32 on a CPU")
    add("--threads", type=int, help="threads of PyTorch, on a CPU")
    add("--seconds", type=float, default=0.5, help="approximate time per implementation and shape")
    add("--budget", type=float, help="seconds for the whole run; the most telling shapes come first")
    add("--compiled", action="store_true", help="on a CPU too, time what torch.compile makes of eager code")
    add("--list", action="store_true", help="name the shapes, time nothing")
    add("--json", type=Path, help="write all numbers, device and versions to this file")
    add("--plot", type=Path, help="draw speed over shapes into this file (.png, .svg, .pdf)")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU that torch can see")
    if options.plot and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib, which this package does not depend on: pip install matplotlib")
    for path in (options.json, options.plot):
        if path is not None and not path.absolute().parent.is_dir():
            parser.error(f"{path}: the folder {path.absolute().parent} does not exist")
    return options


if __name__ == "__main__":
    sys.exit(main())
