"""Which values of the section ``data`` go together."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from tests.train.small_run import small_config
from unigrf_dist.config.rules import broken_rules


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"chunk_context": 4}, "data.chunk_context is for chunks of whole histories"),
        ({"chunks": "all", "chunk_context": 13}, "data.chunk_context is 13, but data.max_events = 12"),
    ],
)
def test_what_contradicts_itself_is_refused(data: dict[str, Any], said: str) -> None:
    (problem,) = broken_rules(small_config(**{f"data__{key}": value for key, value in data.items()}))
    assert said in problem


@pytest.mark.parametrize(
    ("data", "context"),
    [
        ({}, None),
        ({"chunks": "all"}, 6),
        ({"chunks": "all", "chunk_context": 12}, 12),
        ({"chunks": "all", "max_events": 1}, 1),
    ],
)
def test_chunks_begin_with_half_a_window_unless_told(data: dict[str, Any], context: int | None) -> None:
    config = small_config(**{f"data__{key}": value for key, value in data.items()})
    assert broken_rules(config) == []
    assert config.data.context_of_chunks == context


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"test_from": 5}, "data.split.test_from is for a split in time"),
        ({"kind": "time", "test_from": 5}, "data.split.validation_from is missing"),
        (
            {"kind": "time", "validation_from": 5, "test_from": 5},
            "validation_from is 5, but data.split.test_from = 5",
        ),
    ],
)
def test_a_split_that_contradicts_itself_is_refused(split: dict[str, Any], said: str) -> None:
    (problem,) = broken_rules(small_config(data__split=split))
    assert said in problem


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        (1_706_659_200, 1_706_659_200),
        ("2024-01-31", 1_706_659_200),
        (datetime.date(2024, 1, 31), 1_706_659_200),
        ("2024-01-31 12:00:00", 1_706_659_200 + 12 * 3600),
        ("2024-01-31T12:00:00+02:00", 1_706_659_200 + 10 * 3600),
    ],
)
def test_moments_are_seconds_or_dates_in_utc(moment: object, seconds: int) -> None:
    split = {"kind": "time", "validation_from": 0, "test_from": moment}
    assert small_config(data__split=split).data.split.test_from == seconds


@pytest.mark.parametrize("moment", ["yesterday", True, 1.5, "2024-01-31 12:00:00.5"])
def test_what_is_no_moment_is_refused(moment: object) -> None:
    with pytest.raises(ValueError, match="test_from"):
        small_config(data__split={"kind": "time", "validation_from": 0, "test_from": moment})
