"""Which values of the section ``data`` go together."""

from __future__ import annotations

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
