"""Makes the data of ``configs/demo.yaml`` unless they are there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    if not Path("data/demo/manifest.json").exists():
        command = [sys.executable, "-m", "unigrf_dist", "synthesize", "--out", "data/demo"]
        sys.exit(subprocess.run([*command, "--users", "8000", "--items", "500"]).returncode)
