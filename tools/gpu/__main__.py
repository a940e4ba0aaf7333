"""``python -m tools.gpu [--rehearse] [--out DIR]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.gpu.parts import parts
from tools.gpu.session import run_session, table


def main() -> int:
    """Exit status 0 if every part passed or was skipped, 1 if one did not, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu", description="A first session on a GPU.")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of logs and session.json")
    parser.add_argument("--rehearse", action="store_true", help="the smallest of everything, without a GPU")
    options = parser.parse_args()
    import torch

    if not options.rehearse and not torch.cuda.is_available():
        print("error: torch sees no GPU here; --rehearse runs the same parts on the CPU", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    records = run_session(parts(options.out, rehearsal=options.rehearse), options.out)
    print(table(records))
    print(f"everything: {options.out / 'session.json'}")
    return int(any(record["status"] not in ("passed", "skipped") for record in records))


if __name__ == "__main__":
    sys.exit(main())
