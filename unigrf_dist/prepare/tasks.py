"""The tasks of a preparation: reading files, surveying and sorting buckets. Each leaves a piece behind.

They depend on one another in three places alone: a bucket is surveyed when all files have been read, ids are given
when all buckets have been surveyed, and a bucket is sorted when ids have been given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from unigrf_dist.data.manifest import SkippedRows
from unigrf_dist.errors import UserError, printable
from unigrf_dist.prepare.buckets import SURVEYED_ITEMS, SURVEYED_VALUES, survey, write_run
from unigrf_dist.prepare.ingest import joined, pieces, stage_file
from unigrf_dist.prepare.plan import Plan
from unigrf_dist.prepare.progress import Progress
from unigrf_dist.prepare.sql import count_rows, parquet_rows, sql_text
from unigrf_dist.prepare.staging_folder import StagingFolder
from unigrf_dist.prepare.vocabulary import make_behaviours, make_items

READ, SURVEY, VOCABULARY, RUN = "read", "survey", "vocabulary", "run"


@dataclass(frozen=True)
class Share:
    """One of several shares of the work.

    Attributes:
        index: number of the share, from 0.
        count: number of shares.
    """

    index: int = 0
    count: int = 1

    def of_buckets(self, plan: Plan) -> list[int]:
        """Numbers of the share's buckets."""
        return list(range(self.index, plan.num_buckets, self.count))

    def of_files(self, plan: Plan) -> list[int]:
        """Numbers of the share's files: about the same bytes for each share."""
        sizes = [file.stat().st_size for _, file in plan.files]
        loads = [0] * self.count
        mine = []
        for number in sorted(range(len(sizes)), key=lambda number: (-sizes[number], number)):
            lightest = loads.index(min(loads))
            loads[lightest] += sizes[number]
            if lightest == self.index:
                mine.append(number)
        return sorted(mine)


def parse_share(text: str) -> Share:
    """The share that ``K/N`` names.

    Raises:
        UserError: it names none.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UserError(f"share {text!r}: write it as K/N, such as 0/16 to 15/16 for sixteen shares")
    return Share(int(match[1]), int(match[2]))


class Tasks:
    """Does the work of a plan, piece by piece; what is finished is not done again.

    Args:
        plan: the preparation.
        staging: where the pieces are.
        connection: empty database for the work; gets the tables ``items(raw_id, item_id)`` and
            ``behaviours(code, value_0 …)`` once ids are given.
        report: called as the work goes on.
    """

    def __init__(
        self, plan: Plan, staging: StagingFolder, connection: duckdb.DuckDBPyConnection, report: Progress
    ) -> None:
        self.plan, self.staging = plan, staging
        self._connection, self._report = connection, report

    def advance(self, share: Share) -> str | None:
        """Do a share of everything that can be done now.

        Returns:
            what the next stage of this share waits for; None if all that precedes the merge is done.

        Raises:
            UserError: see ``stage_file`` and ``make_behaviours``.
        """
        every = Share()
        self.read(share.of_files(self.plan))
        if missing := self._missing(READ, every.of_files(self.plan)):
            return f"{len(missing):,} of {len(self.plan.files):,} files are still to be read"
        self.survey(share.of_buckets(self.plan))
        if missing := self._missing(SURVEY, every.of_buckets(self.plan)):
            return f"{len(missing):,} of {self.plan.num_buckets:,} buckets are still to be surveyed"
        self.give_ids()
        self.sort(share.of_buckets(self.plan))
        if missing := self._missing(RUN, every.of_buckets(self.plan)):
            return f"{len(missing):,} of {self.plan.num_buckets:,} buckets are still to be sorted"
        return None

    def read(self, files: Sequence[int]) -> None:
        """Read files into pieces of buckets."""
        missing = self._missing(READ, files)
        for done, number in enumerate(missing):
            self._report(f"read {printable(self.plan.files[number][1].name)}", done / len(missing))
            with self.staging.new_piece(READ, number) as (folder, record):
                events, skipped = stage_file(self._connection, self.plan, number, folder / "events")
                record.update(events=events, skipped=skipped.model_dump())

    def survey(self, buckets: Sequence[int]) -> None:
        """Count what is in buckets, once all files have been read."""
        missing = self._missing(SURVEY, buckets)
        for done, bucket in enumerate(missing):
            self._report("survey", done / len(missing))
            with self.staging.new_piece(SURVEY, bucket) as (folder, record):
                record.update(survey(self._connection, self.plan, self._pieces(bucket), folder))

    def give_ids(self) -> None:
        """Make the vocabularies, once all buckets have been surveyed, or take them from their piece."""
        self._report("vocabulary", 0.0)
        files = {table: self.staging.piece(VOCABULARY) / f"{table}.parquet" for table in ("items", "behaviours")}
        if self.staging.has(VOCABULARY):
            for table, file in files.items():
                self._connection.execute(f"CREATE TABLE {table} AS FROM {parquet_rows([file])}")
            return
        with self.staging.new_piece(VOCABULARY) as (folder, record):
            record["behaviours"] = self._make_vocabularies()
            for table, file in files.items():
                place = sql_text(str((folder / file.name).absolute()))
                self._connection.execute(f"COPY {table} TO {place} (FORMAT parquet)")

    def sort(self, buckets: Sequence[int]) -> None:
        """Sort buckets into runs, once ids have been given. What was read of them is removed."""
        missing = self._missing(RUN, buckets)
        for done, bucket in enumerate(missing):
            self._report("sort", done / len(missing))
            with self.staging.new_piece(RUN, bucket) as (folder, record):
                record.update(write_run(self._connection, self.plan, self._pieces(bucket), folder))
            for piece in self._pieces(bucket):
                piece.unlink(missing_ok=True)

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Records of all pieces of a kind, in their order; all are finished."""
        numbers = Share().of_files(self.plan) if kind == READ else Share().of_buckets(self.plan)
        return [self.staging.record(kind, number) for number in numbers]

    def skipped_rows(self) -> SkippedRows:
        """Rows of all files that were skipped."""
        return joined([SkippedRows(**record["skipped"]) for record in self.records(READ)])

    def num_good_rows(self) -> int:
        """Rows of all files that were not skipped."""
        return sum(record["events"] for record in self.records(READ))

    def _make_vocabularies(self) -> list[dict[str, float]]:
        surveys = [self.staging.piece(SURVEY, bucket) for bucket in Share().of_buckets(self.plan)]
        surveyed = [folder for folder in surveys if (folder / SURVEYED_ITEMS).exists()]
        least = self.plan.thinning.min_item_events
        if surveyed:
            self._connection.execute(
                "CREATE TABLE events AS SELECT item_key "
                f"FROM {parquet_rows([folder / SURVEYED_ITEMS for folder in surveyed])} "
                f"GROUP BY item_key HAVING sum(kept) > 0 AND sum(events) >= {least}"
            )
        if not surveyed or not count_rows(self._connection, "events"):
            raise UserError(
                f"{self.plan.source.files[0]}: no events are left; check the file, the format and the "
                "minimal counts"
            )
        make_items(self._connection)
        if self.plan.source.value_types:
            kept = "SEMI JOIN items ON items.raw_id = item_key" if least > 1 else ""
            self._connection.execute(
                "CREATE OR REPLACE TABLE events AS "
                f"FROM {parquet_rows([folder / SURVEYED_VALUES for folder in surveyed])} {kept}"
            )
        return make_behaviours(self._connection, self.plan.source)

    def _missing(self, kind: str, numbers: Sequence[int]) -> list[int]:
        return [number for number in numbers if not self.staging.has(kind, number)]

    def _pieces(self, bucket: int) -> list[Path]:
        files = range(len(self.plan.files))
        return [piece for number in files for piece in pieces(self.staging.piece(READ, number) / "events", bucket)]
