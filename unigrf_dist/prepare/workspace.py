"""The temporary DuckDB database in which a data set is prepared: bounded memory, spilling to disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import duckdb
import pyarrow as pa

from unigrf_dist.errors import UserError


@contextmanager
def workspace(folder: Path, memory_limit: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database on disk in ``folder``, which is created on entry and removed on exit.

    Args:
        folder: folder to create; it must not exist.
        memory_limit: DuckDB's memory limit, such as ``2GB``.

    Raises:
        UserError: the memory limit is not a size, or too small for the data.
        OSError: the disk is full.
    """
    folder.mkdir()
    try:
        with duckdb.connect(str(folder / "events.duckdb")) as connection:
            connection.execute("SET temp_directory = ?", [str(folder / "spill")])
            connection.execute("SET preserve_insertion_order = true")
            # Times without a zone are UTC, wherever the machine stands.
            connection.execute("SET TimeZone = 'UTC'")
            _limit_memory(connection, memory_limit)
            yield connection
    except duckdb.Error as error:
        if disk_is_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        if isinstance(error, duckdb.OutOfMemoryException):
            raise UserError(f"memory limit {memory_limit} is too small for this data; raise it") from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def folder_of(connection: duckdb.DuckDBPyConnection) -> Path:
    """Folder of a workspace, for further temporary files."""
    [(spill,)] = connection.execute("SELECT current_setting('temp_directory')").fetchall()
    return Path(spill).parent


def arrow_batches(connection: duckdb.DuckDBPyConnection, query: str, rows: int) -> Iterator[pa.RecordBatch]:
    """The result of a query, streamed in batches of about ``rows`` rows."""
    yield from cast(pa.RecordBatchReader, connection.sql(query).to_arrow_reader(rows))


def disk_is_full(error: duckdb.Error) -> bool:
    """Whether DuckDB failed for lack of disk space, which only its message tells."""
    return any(words in str(error) for words in ("No space left", "max_temp_directory_size"))


def _limit_memory(connection: duckdb.DuckDBPyConnection, memory_limit: str) -> None:
    try:
        connection.execute("SET memory_limit = ?", [memory_limit])
    except duckdb.Error as error:
        raise UserError(f"memory limit {memory_limit!r} is no size; write it as 512MB or 2GB") from error
