"""Before a run begins: do all ranks have the same configuration, data, code and versions, and one run folder?"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

import unigrf_dist
from unigrf_dist.config import Config
from unigrf_dist.errors import UserError
from unigrf_dist.ranks.runtime import Runtime
from unigrf_dist.train.config_history import flat_config

_PACKAGES = ("torch", "deepspeed", "torchrec", "fbgemm-gpu", "pyarrow", "numpy")
_TOKEN_FILE = ".seen_by_all_ranks"
# A network file system may show a new file a little later.
_PATIENCE_SECONDS = 10.0


def facts_of(config: Config) -> dict[str, str]:
    """What must be the same on every rank, by name.

    Raises:
        UserError: there is no data set where the configuration says.
    """
    # Folders may be mounted elsewhere; what is in them is compared.
    values = {key: repr(value) for key, value in flat_config(config).items() if key != "data.path"}
    manifest = Path(config.data.path) / "manifest.json"
    try:
        values["data (manifest.json)"] = hashlib.sha256(manifest.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{config.data.path}: no data set here: {error.strerror} ({manifest.name})") from error
    values["code of unigrf_dist"] = _code_fingerprint()
    values["Python"] = platform.python_version()
    values.update((name, importlib.metadata.version(name)) for name in _PACKAGES if _is_installed(name))
    return values


def refuse_differing(facts: Mapping[str, str] | UserError) -> None:
    """Raise UserError, on every rank, where ranks differ or one has failed; collective.

    Args:
        facts: what must be the same, or why this rank can't begin.
    """
    own = str(facts) if isinstance(facts, UserError) else dict(facts)
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, (socket.gethostname(), own))
    for rank, (host, theirs) in enumerate(gathered):
        if isinstance(theirs, str):
            raise UserError(f"{theirs}{_at(rank, host, gathered)}")
    (first_host, first), differences = gathered[0], []
    for rank, (host, theirs) in enumerate(gathered):
        for key in sorted(first.keys() | theirs.keys()):
            if first.get(key) != theirs.get(key):
                differences.append((key, rank, host, first.get(key, "absent"), theirs.get(key, "absent")))
    if differences:
        key, rank, host, expected, found = differences[0]
        keys = sorted({each[0] for each in differences})
        more = f" (also: {', '.join(each for each in keys if each != key)})" if len(keys) > 1 else ""
        raise UserError(
            f"ranks differ: {key} is {found} on host {host} (rank {rank}), but {expected} on host {first_host} "
            f"(rank 0){more}; give all hosts the same configuration, data, code and packages"
        )


def prove_shared(run: Path, runtime: Runtime) -> None:
    """Raise UserError, on every rank, unless all see the same run folder; collective.

    Args:
        run: the run's folder, which rank 0 has made.
        runtime: this rank.
    """
    token: list[Any] = [secrets.token_hex(8)]
    dist.broadcast_object_list(token)
    if runtime.is_main:
        try:
            (run / _TOKEN_FILE).write_text(token[0], encoding="utf-8")
        except OSError as error:
            token = [error.strerror]
    seen = runtime.is_main or _wait_for(run / _TOKEN_FILE, token[0])
    gathered: list[Any] = [None] * runtime.world_size
    dist.all_gather_object(gathered, (socket.gethostname(), seen))
    for rank, (host, sees) in enumerate(gathered):
        if not sees:
            raise UserError(
                f"{run}: host {host} (rank {rank}) sees another folder than host {gathered[0][0]} (rank 0); give "
                "--run a folder on storage that all hosts share"
            )


def _wait_for(file: Path, token: str) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if file.is_file() and file.read_text(encoding="utf-8") == token:
            return True
        time.sleep(0.1)
    return False


def _at(rank: int, host: str, gathered: list[Any]) -> str:
    """Where an error arose, if it is not everybody's."""
    everywhere = all(isinstance(theirs, str) for _, theirs in gathered)
    return "" if everywhere else f" (on host {host}, rank {rank})"


def _code_fingerprint() -> str:
    digest, root = hashlib.sha256(), Path(unigrf_dist.__file__).parent
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
