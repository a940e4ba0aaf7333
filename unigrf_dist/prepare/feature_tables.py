"""Tables of side features in DuckDB: from a raw file to the vocabulary of each feature and its owners' codes.

The distinct values of a feature become the codes 1, 2, … in the order of the values as text; 0 stands for a
missing value. Items and users without events are ignored, so that every code occurs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from unigrf_dist.data.feature_files import write_item_codes, write_vocabulary
from unigrf_dist.data.manifest import FeatureRecord, FileRecord, IdType, Owner
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.raw_checks import problem_of
from unigrf_dist.prepare.scan import Scan, read_scan, user_error_of_reading
from unigrf_dist.prepare.source import FeatureColumn, FeatureSource
from unigrf_dist.prepare.sql import ID_TYPES, count_rows, sql_text
from unigrf_dist.prepare.workspace import arrow_batches

_ROWS_PER_CHUNK = 1 << 18
_NUMBERS = ("FLOAT", "DOUBLE", "DECIMAL")


class FeatureTables:
    """The features of items or of users, whose raw ids are in the table ``items`` or ``users``.

    Args:
        connection: database with that table and its column ``raw_id``.
        source: file of the features; None if there are none.
        owner: whether the features are those of items or of users.
        id_type: type of the raw ids.
        known: values that have the codes 1, 2, … already, by the feature's name; others come behind them.

    Attributes:
        multi_valued: whether each feature may have several values, by its name; empty without features.

    Raises:
        UserError: the file cannot be read, or its columns or rows are bad.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        source: FeatureSource | None,
        owner: Owner,
        id_type: IdType,
        known: Mapping[str, pa.Array] | None = None,
    ) -> None:
        self._connection, self._owner = connection, owner
        self.multi_valued: dict[str, bool] = {}
        self._has_titles = source is not None and source.title is not None
        if source is None:
            return
        with user_error_of_reading(source.file):
            types = self._load(source, id_type)
        for number, (name, column) in enumerate(source.features.items()):
            self.multi_valued[name] = self._is_multi_valued(source.file, column, types[column.column])
            values = (known or {}).get(name, pa.array([], pa.string()))
            self._encode(number, column, f"column_{number}", values, many=self.multi_valued[name])

    def write(self, folder: Path) -> list[FeatureRecord]:
        """Write the vocabularies into the data set ``folder``. Returns the manifest's records of the features."""
        records, values = [], self.values()
        num_owners = count_rows(self._connection, f"{self._owner}s") if self.multi_valued else 0
        for name, many in self.multi_valued.items():
            vocabulary = values[name]
            records.append(
                FeatureRecord(
                    name=name,
                    owner=self._owner,
                    cardinality=len(vocabulary) + 1,
                    multi_valued=many,
                    num_missing=num_owners - self.num_with(name),
                    vocabulary=write_vocabulary(folder, self._owner, name, vocabulary),
                )
            )
        return records

    def values(self) -> dict[str, pa.Array]:
        """Raw values of the codes 1, 2, … of each feature."""
        return {
            name: self._connection.sql(f"SELECT value FROM {self._table('vocabulary', number)} ORDER BY code")
            .to_arrow_table()
            .column(0)
            .combine_chunks()
            for number, name in enumerate(self.multi_valued)
        }

    def write_items(self, folder: Path) -> FileRecord | None:
        """Write the codes of all items into the data set ``folder``; None if there are no features."""
        if not self.multi_valued:
            return None
        return write_item_codes(folder, self.multi_valued, self.item_codes())

    def item_codes(self) -> Iterator[pa.RecordBatch]:
        """Ids of all items and their codes, by ascending id, in chunks."""
        yield from self._codes("item_id")

    def num_with(self, name: str) -> int:
        """Number of owners that have a value of the feature ``name``."""
        return count_rows(self._connection, self._table("codes", list(self.multi_valued).index(name)))

    def titles(self) -> pa.Array | None:
        """Titles of the items, by ascending item id, null where the file has none; None without such a column."""
        if not self._has_titles:
            return None
        query = (
            "SELECT nullif(trim(CAST(r.title AS VARCHAR)), '') AS title FROM items o "
            "LEFT JOIN item_rows r ON r.raw_id = o.raw_id ORDER BY o.item_id"
        )
        return self._connection.sql(query).to_arrow_table().column(0).combine_chunks()

    def codes(self) -> Iterator[pa.RecordBatch]:
        """Codes of all owners, by ascending raw id, in chunks with one column per feature."""
        for batch in self._codes("raw_id"):
            yield batch.select(batch.schema.names[1:])

    def _load(self, source: FeatureSource, id_type: IdType) -> dict[str, str]:
        """Make the table ``{owner}_rows`` of the file's columns. Returns their types."""
        types: dict[str, str] = {}
        read_scan(
            self._connection,
            source.file,
            source,
            lambda scan: types.update(self._read(scan, source, id_type)),
        )
        rows = f"{self._owner}_rows"
        for row, problem in self._connection.execute(
            f"SELECT row, problem FROM {rows} WHERE problem IS NOT NULL ORDER BY row LIMIT 1"
        ).fetchall():
            raise UserError(f"{source.file}, row {row}: {problem}; fix it")
        for raw_id, first, last in self._connection.execute(
            f"SELECT raw_id, min(row), max(row) FROM {rows} GROUP BY raw_id HAVING count(*) > 1 LIMIT 1"
        ).fetchall():
            raise UserError(f"{source.file}: {source.key} {raw_id!r} stands in rows {first} and {last}; keep one")
        return types

    def _read(self, scan: Scan, source: FeatureSource, id_type: IdType) -> dict[str, str]:
        key = scan.columns[source.key].as_id(id_type)
        named = "".join(
            f", {scan.columns[column.column].sql} AS column_{number}"
            for number, column in enumerate(source.features.values())
        )
        kept = "".join(f", column_{number}" for number in range(len(source.features)))
        if source.title is not None:
            named += f", {scan.columns[source.title].sql} AS title"
            kept += ", title"
        self._connection.execute(
            f"CREATE TABLE {self._owner}_rows AS SELECT row, CAST(key AS {ID_TYPES[id_type]}) AS raw_id, "
            f"{problem_of([('key', key)])} AS problem{kept} "
            f"FROM (SELECT *, {key.value} AS key{named} FROM {scan.sql})"
        )
        return {name: column.kind for name, column in scan.columns.items()}

    def _is_multi_valued(self, file: Path, column: FeatureColumn, kind: str) -> bool:
        where = f"{file}: column {column.column!r}"
        if kind.startswith(_NUMBERS):
            raise UserError(f"{where} is {kind}; a feature is text or a whole number: put its values into classes")
        many = column.separator is not None or kind.endswith("[]")
        if many and self._owner == "user":
            raise UserError(f"{where} holds several values; a feature of users has one")
        if column.separator is not None and kind != "VARCHAR":
            raise UserError(f"{where} is {kind}; only text has a separator")
        return many

    def _encode(self, number: int, column: FeatureColumn, value: str, known: pa.Array, *, many: bool) -> None:
        """Make the feature's tables: (raw id, value), (value, code) and (raw id, code or codes)."""
        if column.separator is not None:
            value = f"string_split({value}, {sql_text(column.separator)})"
        value = f"CAST({f'unnest({value})' if many else value} AS VARCHAR)"
        if column.pattern is not None:
            value = f"regexp_extract({value}, {sql_text(column.pattern)}, 1)"
        values, vocabulary, codes = (self._table(kind, number) for kind in ("values", "vocabulary", "codes"))
        self._connection.execute(
            f"CREATE TABLE {values} AS SELECT DISTINCT raw_id, value FROM (SELECT raw_id, trim({value}) AS value "
            f"FROM {self._owner}_rows SEMI JOIN {self._owner}s USING (raw_id)) WHERE value <> ''"
        )
        self._connection.register("known", pa.table({"value": known, "code": np.arange(1, len(known) + 1)}))
        self._connection.execute(
            f"CREATE TABLE {vocabulary} AS SELECT value, code::INTEGER AS code FROM known UNION ALL "
            f"SELECT value, (row_number() OVER (ORDER BY value) + {len(known)})::INTEGER "
            f"FROM (SELECT DISTINCT value FROM {values} ANTI JOIN known USING (value))"
        )
        self._connection.unregister("known")
        code = "list(code ORDER BY code)" if many else "any_value(code)"
        self._connection.execute(
            f"CREATE TABLE {codes} AS SELECT raw_id, {code} AS code FROM {values} JOIN {vocabulary} USING (value) "
            "GROUP BY raw_id"
        )

    def _codes(self, key: str) -> Iterator[pa.RecordBatch]:
        """Columns ``key`` and codes of all owners, by ascending ``key``."""
        chosen, joins = "", ""
        for number, many in enumerate(self.multi_valued.values()):
            chosen += f", coalesce(c{number}.code, {'[]' if many else '0'}) AS f{number}"
            joins += f" LEFT JOIN {self._table('codes', number)} c{number} ON c{number}.raw_id = o.raw_id"
        # A cursor of its own: the connection is streaming the events at the same time.
        cursor = self._connection.cursor()
        query = f"SELECT o.{key}{chosen} FROM {self._owner}s o{joins} ORDER BY o.{key}"
        yield from arrow_batches(cursor, query, _ROWS_PER_CHUNK)

    def _table(self, kind: str, number: int) -> str:
        return f"{self._owner}_{kind}_{number}"
