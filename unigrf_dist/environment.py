"""The environment that this project's processes run in."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def put_own_programs_first() -> None:
    """Let child processes find the programs of this Python's environment, also where it is not activated.

    torch finds ninja by PATH. Were it now the machine's and now this environment's, each would compile
    DeepSpeed's operator anew, because one does not read the other's log.
    """
    own = str(Path(sys.executable).parent)
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if folders[0] != own:
        os.environ["PATH"] = os.pathsep.join([own, *folders])
