"""Blocks of named matrices in safetensors files: written as they are sharded, read as they are needed.

A checkpoint is a set of matrices that no rank holds whole. Each rank writes the blocks that it holds into one
file; an index lists which rows and columns of which matrix lie where. Any other sharding reads what overlaps with
its own blocks. Nothing is unpickled, and every file has a SHA-256 in the index.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

AVERAGE = "average"
"""Beside a weight, its average over the steps, if the run has one."""
_HASH_BYTES = 1 << 22


class DamagedError(Exception):
    """A file of a checkpoint is not what was written; the message says which, and how it differs."""


@dataclass(frozen=True)
class Block:
    """Rows and columns of a matrix.

    Attributes:
        name: name of the matrix.
        first_row, first_column: where the block begins in it.
        num_columns: columns that the block stands for.
        values: ``[rows, num_columns]``, or ``[rows]`` where a row has one value for all of these columns, such as
            the accumulator of row-wise Adagrad. To be read into, or written.
    """

    name: str
    first_row: int
    first_column: int
    num_columns: int
    values: Tensor

    @property
    def rows(self) -> range:
        return range(self.first_row, self.first_row + self.values.shape[0])

    @property
    def columns(self) -> range:
        return range(self.first_column, self.first_column + self.num_columns)


@dataclass(frozen=True)
class StoredBlock:
    """A block in a file.

    Attributes:
        name, first_row, first_column, num_columns: see ``Block``.
        num_rows: rows of the block.
        key: its name in the file.
    """

    name: str
    first_row: int
    first_column: int
    num_rows: int
    num_columns: int
    key: str


@dataclass(frozen=True)
class StoredFile:
    """A file of blocks.

    Attributes:
        file: its name inside the checkpoint.
        num_bytes, sha256: its size and hash.
        blocks: what it holds.
    """

    file: str
    num_bytes: int
    sha256: str
    blocks: tuple[StoredBlock, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(record: dict[str, Any]) -> StoredFile:
        blocks = tuple(StoredBlock(**block) for block in record["blocks"])
        name = str(record["file"])
        if Path(name).name != name:
            raise DamagedError(f"its index names {name!r}, which is outside the checkpoint")
        return StoredFile(name, int(record["num_bytes"]), str(record["sha256"]), blocks)


def as_average(blocks: list[Block], stored: set[str]) -> list[Block]:
    """The same tensors, to be filled with averaged weights where a checkpoint has such.

    Args:
        blocks: weights, and maybe more.
        stored: names of what the checkpoint holds.
    """
    renamed = [(block, block.name.removesuffix("/weight") + f"/{AVERAGE}") for block in blocks]
    return [replace(block, name=name) if name in stored else block for block, name in renamed]


def write_blocks(folder: Path, name: str, blocks: Sequence[Block]) -> StoredFile:
    """Write ``blocks`` into ``folder/name``, and the file to the disk.

    Raises:
        OSError: it could not be written.
    """
    keys = [f"{number:06d}" for number in range(len(blocks))]
    file = folder / name
    try:
        save_file({k: b.values.detach().cpu().contiguous() for k, b in zip(keys, blocks, strict=True)}, file)
    except SafetensorError as error:
        raise _system_error(error, file) from error
    sync(file)
    stored = tuple(
        StoredBlock(b.name, b.first_row, b.first_column, b.values.shape[0], b.num_columns, k)
        for k, b in zip(keys, blocks, strict=True)
    )
    return StoredFile(name, file.stat().st_size, sha256(file), stored)


def verify(folder: Path, files: Iterable[StoredFile]) -> None:
    """Compare size and hash of ``files``.

    Raises:
        DamagedError: one of them differs, or can't be read.
    """
    for stored in files:
        file = folder / stored.file
        try:
            num_bytes = file.stat().st_size
            if num_bytes != stored.num_bytes:
                raise DamagedError(f"{stored.file} has {num_bytes} bytes, {stored.num_bytes} were written")
            if sha256(file) != stored.sha256:
                raise DamagedError(f"{stored.file} is not the file that was written: its SHA-256 differs")
        except OSError as error:
            raise DamagedError(f"{stored.file} can't be read: {error.strerror}") from error


def read_blocks(folder: Path, files: Sequence[StoredFile], targets: Iterable[Block]) -> None:
    """Fill the values of ``targets`` from verified files, whatever sharding wrote them.

    One value per row that stands for other columns than it was written for is the mean of the values of those
    columns, weighted by their number: for row-wise Adagrad, whose accumulator is a mean over the row, that is
    exact when columns are joined.

    Raises:
        DamagedError: a part of a target is in no file.
    """
    by_name: dict[str, list[tuple[str, StoredBlock]]] = defaultdict(list)
    for stored in files:
        for block in stored.blocks:
            by_name[block.name].append((stored.file, block))
    with _OpenFiles(folder) as opened:
        for target in targets:
            _fill(target, by_name.get(target.name, []), opened)


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        DamagedError: it can't be read.
    """
    try:
        return _sha256(file)
    except OSError as error:
        raise DamagedError(f"{file.name} can't be read: {error.strerror}") from error


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(_HASH_BYTES):
            digest.update(part)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Have the operating system write a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(file: Path, body: dict[str, Any]) -> None:
    """Write ``body`` together with its own SHA-256, and the file to the disk."""
    text = json.dumps(body, indent=1, allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(f"{digest}\n{text}\n", encoding="utf-8")
    sync(file)


def read_json(file: Path) -> dict[str, Any]:
    """What ``write_json`` wrote.

    Raises:
        DamagedError: the file can't be read, or is not what was written.
    """
    try:
        digest, _, text = file.read_bytes().partition(b"\n")
    except OSError as error:
        raise DamagedError(f"{file.name} can't be read: {error.strerror}") from error
    text = text.removesuffix(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        raise DamagedError(f"{file.name} is not the file that was written: its SHA-256 differs")
    return dict(json.loads(text))


class _OpenFiles:
    """Opens each file once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Any] = {}

    def __enter__(self) -> _OpenFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.clear()

    def read(self, file: str, block: StoredBlock, rows: range, columns: range) -> Tensor:
        """The part of a stored block that lies in ``rows`` and ``columns`` of the matrix."""
        if file not in self._files:
            self._files[file] = safe_open(self._folder / file, framework="pt")
        stored = self._files[file].get_slice(block.key)
        first = rows.start - block.first_row
        if len(stored.get_shape()) == 1:
            return stored[first : first + len(rows)]
        left = columns.start - block.first_column
        return stored[first : first + len(rows), left : left + len(columns)]


def _fill(target: Block, stored: list[tuple[str, StoredBlock]], opened: _OpenFiles) -> None:
    per_row = target.values.ndim == 1
    missing = len(target.rows) * target.num_columns
    total = torch.zeros(target.values.shape, dtype=torch.float64) if per_row else None
    for file, block in stored:
        rows = _overlap(target.rows, range(block.first_row, block.first_row + block.num_rows))
        columns = _overlap(target.columns, range(block.first_column, block.first_column + block.num_columns))
        if not rows or not columns:
            continue
        values = opened.read(file, block, rows, columns)
        missing -= len(rows) * len(columns)
        into = slice(rows.start - target.first_row, rows.stop - target.first_row)
        if total is not None:
            total[into] += values.double() * (len(columns) / target.num_columns)
        else:
            left = columns.start - target.first_column
            target.values[into, left : left + len(columns)] = values.to(target.values)
    if missing:
        raise DamagedError(
            f"it has no {target.name} for {missing} of {len(target.rows) * target.num_columns} values"
        )
    if total is not None:
        target.values.copy_(total)


def _overlap(left: range, right: range) -> range:
    return range(max(left.start, right.start), min(left.stop, right.stop))


def _system_error(error: SafetensorError, file: Path) -> OSError:
    """The system's error in safetensors' own, which keeps only its text."""
    found = re.search(r"os error (\d+)", str(error))
    number = int(found.group(1)) if found else errno.EIO
    return OSError(number, os.strerror(number) if found else str(error), str(file))
