"""What `make setup` asks of a machine before it downloads anything: python tools/preflight.py cpu|cuda

Prints one line for each thing that is missing, with the command that fixes it, and exits 1 if there is any.
It must be readable to the Pythons that it turns away, so it keeps to what 3.6 knew.
"""

import importlib.util
import os
import shutil
import sys
import sysconfig

OLDEST = (3, 10)
# Downloads and installed files of one set-up, in GiB. With plain PyPI wheels torch brings the CUDA libraries
# even on a CPU machine.
NEEDED_GIB = {"cpu": 8, "cuda": 16}


def problems(device):
    """All that keeps this machine from being set up, one line each."""
    if sys.version_info < OLDEST:
        return [_old_python()]
    found = [_platform(), _venv(), _compiler(), _headers(), _disk(device)]
    return [line for line in found if line]


def _old_python():
    oldest, have = ".".join(map(str, OLDEST)), sys.version.split()[0]
    fix = "name another one, as in `make setup PYTHON=python3.11`"
    return f"Python {oldest} or newer is needed and {sys.executable} is {have}: {fix}"


def _platform():
    if sys.platform.startswith("linux"):
        return None
    return "FBGEMM's tables are built for Linux only: use Linux, WSL 2 or a container"


def _venv():
    # Debian leaves ensurepip out of python3, and venv fails half-way without it.
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return None
    return f"the venv module of {sys.executable} is missing: apt-get install {_debian_python()}-venv"


def _compiler():
    name = os.environ.get("CXX", "g++")
    if shutil.which(name):
        return None
    return f"no C++ compiler ({name}), and DeepSpeed and torch.compile need one: apt-get install g++"


def _headers():
    folder = sysconfig.get_paths()["include"]
    if os.path.exists(os.path.join(folder, "Python.h")):
        return None
    return f"no Python.h in {folder}, and compiled code needs it: apt-get install {_debian_python()}-dev"


def _disk(device):
    folder = os.getcwd()
    free, needed = shutil.disk_usage(folder).free / 2**30, NEEDED_GIB[device]
    if free >= needed:
        return None
    return f"{free:.1f} GiB are free in {folder} and {needed} are needed: make room, or clone to another disk"


def _debian_python():
    return "python" + ".".join(map(str, sys.version_info[:2]))


if __name__ == "__main__":
    lines = problems(sys.argv[1])
    for line in lines:
        print("error: " + line, file=sys.stderr)
    sys.exit(1 if lines else 0)
