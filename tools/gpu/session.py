"""Runs the parts one after the other; each survives the failure of the one before."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.gpu.parts import Part

_LAST_LINES = 40


def run_session(parts: Sequence[Part], out: Path) -> list[dict[str, Any]]:
    """Run all ``parts`` and keep what they bring in ``out/session.json``, written anew after each one."""
    records: list[dict[str, Any]] = []
    for part in parts:
        print(f"{part.name} (at most {part.seconds} s)", flush=True)
        records.append(_run(part, out))
        (out / "session.json").write_text(json.dumps({"parts": records}, indent=1) + "\n", encoding="utf-8")
    return records


def _run(part: Part, out: Path) -> dict[str, Any]:
    record: dict[str, Any] = {"name": part.name, "command": part.command}
    if part.skip:
        return {**record, "status": "skipped", "seconds": 0.0, "last_line": part.skip}
    if part.result is not None:
        part.result.unlink(missing_ok=True)
    log = out / f"{part.name.replace(' ', '-').replace(',', '')}.log"
    begin = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        try:
            done = subprocess.run(
                part.command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=part.seconds,
                env={**os.environ, **part.environment},
            )
            status = "passed" if done.returncode == 0 else f"failed with {done.returncode}"
        except subprocess.TimeoutExpired:
            status = f"stopped after {part.seconds} s"
        except OSError as error:
            status = f"not started: {error}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
    record |= {"status": status, "seconds": round(time.monotonic() - begin, 1), "log": lines}
    record["last_line"] = next((line for line in reversed(lines) if line.strip()), "")
    # A part that was stopped may have written half of its work, which counts.
    if part.result is not None and part.result.exists():
        record["result"] = json.loads(part.result.read_text(encoding="utf-8"))
    return record


def table(records: Sequence[dict[str, Any]]) -> str:
    """One line for each part: what became of it, its seconds, its last word."""
    widths = [max(len(str(record[key])) for record in records) for key in ("name", "status")]
    return "\n".join(
        f"{record['name']:<{widths[0]}}  {record['status']:<{widths[1]}}  {record['seconds']:>6.1f} s  "
        f"{summary(record)[:100]}"
        for record in records
    )


def summary(record: dict[str, Any]) -> str:
    """What a part found, in a few words."""
    found = record.get("result", {})
    if not isinstance(found, dict):
        return str(record["last_line"])
    if "mfu" in found:
        waits = f", {found['host_waits_per_step']:g} waits of the host" if "host_waits_per_step" in found else ""
        return f"{found['milliseconds_per_step']:.1f} ms per step, {found['mfu']:.1%} of the measured GEMM{waits}"
    timed = [line for line in found.get("results", []) if not line["refusal"]]
    if timed:
        best = max(timed, key=lambda line: line["fraction"])
        return (
            f"{len(timed)} lines; best {best['fraction']:.0%} of the ceiling, {best['operator']} {best['shape']}"
        )
    return str(record["last_line"])
