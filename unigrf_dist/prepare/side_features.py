"""Side features of items and users: from their raw files to codes, in DuckDB.

Each distinct value of a feature becomes a code 1, 2, … in the order of the values as text; 0 stands for a missing
value. Only items and users that have events count, so that every code occurs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from unigrf_dist.data.feature_files import ITEM_COLUMN, write_item_codes, write_vocabulary
from unigrf_dist.data.manifest import FeatureRecord, FileRecord, IdType, Owner
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.ingest import DUCK_TYPES, sql_name, sql_text
from unigrf_dist.prepare.raw_checks import RawColumn, problem_of
from unigrf_dist.prepare.raw_csv import check_columns, csv_columns
from unigrf_dist.prepare.source import FeatureColumn, FeatureSource
from unigrf_dist.prepare.workspace import arrow_batches, disk_is_full

_ROWS_PER_CHUNK = 1 << 18
_NUMBERS = ("FLOAT", "DOUBLE", "DECIMAL")


class SideFeatures:
    """The features of one kind of owner, whose raw ids are in the table ``{owner}s(raw_id, …)``.

    Args:
        connection: database with that table.
        source: where the features are; None if there are none.
        owner: items or users.
        id_type: of the raw ids.

    Raises:
        UserError: the file cannot be read, or its columns or rows are bad.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, source: FeatureSource | None, owner: Owner, id_type: IdType
    ) -> None:
        self._connection, self._source, self._owner = connection, source, owner
        self.multi_valued: dict[str, bool] = {}
        if source is None:
            return
        try:
            types = self._load(source, DUCK_TYPES[id_type], id_type)
        except duckdb.OutOfMemoryException:
            raise
        except (duckdb.Error, pa.ArrowException) as error:
            if isinstance(error, duckdb.Error) and disk_is_full(error):
                raise
            raise UserError(f"{source.file}: cannot be read: {' '.join(str(error).split())[:300]}") from error
        for number, (name, column) in enumerate(source.features.items()):
            self.multi_valued[name] = self._is_multi_valued(column, types[column.column])
            self._encode(number, column, f"column_{number}", many=self.multi_valued[name])

    def write(self, folder: Path) -> list[FeatureRecord]:
        """Write the vocabularies."""
        records = []
        for number, (name, many) in enumerate(self.multi_valued.items()):
            values = self._connection.sql(f"SELECT value FROM {self._table('words', number)} ORDER BY code")
            vocabulary = values.to_arrow_table().column(0).combine_chunks()
            records.append(
                FeatureRecord(
                    name=name,
                    owner=self._owner,
                    cardinality=len(vocabulary) + 1,
                    multi_valued=many,
                    num_missing=self._count(f"{self._owner}s") - self._count(self._table("codes", number)),
                    vocabulary=write_vocabulary(folder, self._owner, name, vocabulary),
                )
            )
        return records

    def write_items(self, folder: Path) -> FileRecord | None:
        """Write the codes of all items, in the order of their ids; None if there are none."""
        if not self.multi_valued:
            return None
        return write_item_codes(folder, self.multi_valued, self._codes("item_id"))

    def codes(self) -> Iterator[pa.RecordBatch]:
        """Codes of all owners in the order of their raw ids, in chunks; one column per feature."""
        for batch in self._codes("raw_id"):
            yield batch.select(batch.schema.names[1:])

    def _load(self, source: FeatureSource, key_type: str, id_type: IdType) -> dict[str, str]:
        """Make the table ``{owner}_rows`` of the file's columns. Returns their types."""
        scan, types = self._scan(source)
        key = RawColumn(source.key, "key", types[source.key]).as_id(id_type)
        columns = [(column.column, f"column_{number}") for number, column in enumerate(source.features.values())]
        named = "".join(f", {sql_name(column)} AS {alias}" for column, alias in columns)
        kept = "".join(f", {alias}" for _, alias in columns)
        rows = f"{self._owner}_rows"
        self._connection.execute(
            f"CREATE TABLE {rows} AS SELECT row, CAST({key.value} AS {key_type}) AS raw_id, "
            f"{problem_of([key])} AS problem{kept} "
            f"FROM (SELECT row_number() OVER () AS row, {sql_name(source.key)} AS key{named} FROM {scan})"
        )
        for row, problem in self._connection.execute(
            f"SELECT row, problem FROM {rows} WHERE problem IS NOT NULL ORDER BY row LIMIT 1"
        ).fetchall():
            raise UserError(f"{source.file}, row {row}: {problem}; mend it")
        for raw_id, first, last in self._connection.execute(
            f"SELECT raw_id, min(row), max(row) FROM {rows} GROUP BY raw_id HAVING count(*) > 1 LIMIT 1"
        ).fetchall():
            raise UserError(f"{source.file}: {source.key} {raw_id!r} stands in rows {first} and {last}; keep one")
        return types

    def _scan(self, source: FeatureSource) -> tuple[str, dict[str, str]]:
        """The table function that reads the file, and DuckDB's type of every column."""
        path = sql_text(str(source.file))
        try:
            source.file.open("rb").close()
        except OSError as error:
            raise UserError(f"{source.file}: cannot be read: {error.strerror}") from error
        if source.layout == "csv":
            columns = ", ".join(f"{sql_text(name)}: 'VARCHAR'" for name in csv_columns(source, source.file))
            quote = "'\"'" if source.quoted else "''"
            return (
                f"read_csv({path}, columns={{{columns}}}, delim={sql_text(source.delimiter)}, quote={quote}, "
                f"escape={quote}, header={source.header is None}, auto_detect=false, "
                f"encoding={sql_text(source.encoding)})"
            ), dict.fromkeys(source.columns, "VARCHAR")
        check_columns(source.file, pq.ParquetFile(source.file).schema_arrow.names, source.columns)
        described = self._connection.execute(f"DESCRIBE SELECT * FROM read_parquet({path})").fetchall()
        return f"read_parquet({path})", {name: kind for name, kind, *_ in described}

    def _is_multi_valued(self, column: FeatureColumn, kind: str) -> bool:
        assert self._source is not None
        where = f"{self._source.file}: column {column.column!r}"
        if kind.startswith(_NUMBERS):
            raise UserError(f"{where} is {kind}; a feature is text or a whole number: put its values into classes")
        many = column.separator is not None or kind.endswith("[]")
        if many and self._owner == "user":
            raise UserError(f"{where} holds several values; a feature of users has one")
        if column.separator is not None and kind != "VARCHAR":
            raise UserError(f"{where} is {kind}; only text has a separator")
        return many

    def _encode(self, number: int, column: FeatureColumn, value: str, *, many: bool) -> None:
        """Make the tables of the feature's values, their codes, and the codes of the owners."""
        if column.separator is not None:
            value = f"string_split({value}, {sql_text(column.separator)})"
        value = f"CAST({f'unnest({value})' if many else value} AS VARCHAR)"
        if column.pattern is not None:
            value = f"regexp_extract({value}, {sql_text(column.pattern)}, 1)"
        values, words, codes = (self._table(kind, number) for kind in ("values", "words", "codes"))
        self._connection.execute(
            f"CREATE TABLE {values} AS SELECT DISTINCT raw_id, value FROM (SELECT raw_id, trim({value}) AS value "
            f"FROM {self._owner}_rows SEMI JOIN {self._owner}s USING (raw_id)) WHERE value <> ''"
        )
        self._connection.execute(
            f"CREATE TABLE {words} AS SELECT value, (row_number() OVER (ORDER BY value))::INTEGER AS code "
            f"FROM (SELECT DISTINCT value FROM {values})"
        )
        code = "list(code ORDER BY code)" if many else "any_value(code)"
        self._connection.execute(
            f"CREATE TABLE {codes} AS SELECT raw_id, {code} AS code FROM {values} JOIN {words} USING (value) "
            "GROUP BY raw_id"
        )

    def _codes(self, key: str) -> Iterator[pa.RecordBatch]:
        """``key`` and codes of all owners, in its order."""
        chosen, joins = "", ""
        for number, many in enumerate(self.multi_valued.values()):
            chosen += f", coalesce(c{number}.code, {'[]' if many else '0'}) AS f{number}"
            joins += f" LEFT JOIN {self._table('codes', number)} c{number} ON c{number}.raw_id = o.raw_id"
        # A cursor of its own, as the events are being read meanwhile.
        cursor = self._connection.cursor()
        query = f"SELECT o.{key}{chosen} FROM {self._owner}s o{joins} ORDER BY o.{key}"
        yield from arrow_batches(cursor, query, _ROWS_PER_CHUNK)

    def _table(self, kind: str, number: int) -> str:
        return f"{self._owner}_{kind}_{number}"

    def _count(self, table: str) -> int:
        return int(self._connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def check_names(names: list[str]) -> None:
    """Raise UserError unless the names can name files and columns, and differ whatever their case."""
    for name in names:
        if not re.fullmatch(r"\w+", name) or name == ITEM_COLUMN:
            raise UserError(
                f"feature {name!r}: a name is made of letters, digits and _, not {ITEM_COLUMN}; rename the column"
            )
    folded = [name.casefold() for name in names]
    if repeated := sorted({name for name in folded if folded.count(name) > 1}):
        raise UserError(f"feature {repeated[0]!r} is named twice")
