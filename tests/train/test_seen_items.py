"""Training and evaluation agree on items that come again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.train.small_run import small_config
from unigrf_dist.train.seen_items import needs_prior_items, with_seen_rule

RARE, OFTEN = (SimpleNamespace(num_repeats=n, num_counted_events=1000) for n in (10, 11))
UNKNOWN = SimpleNamespace(num_repeats=None, num_counted_events=1000)


@pytest.mark.parametrize(
    ("manifest", "changes", "seen", "masked", "prior"),
    [
        (RARE, {}, "exclude", True, True),
        (UNKNOWN, {}, "exclude", True, True),
        (OFTEN, {}, "keep", False, False),
        (OFTEN, {"evaluate__seen": "window"}, "window", True, False),
        (OFTEN, {"evaluate__seen": "exclude"}, "exclude", True, True),
        (RARE, {"evaluate__seen": "keep"}, "keep", False, False),
        (OFTEN, {"objective__retrieval__mask_seen_negatives": True}, "keep", True, True),
        (RARE, {"objective__retrieval__mask_seen_negatives": False}, "exclude", False, False),
    ],
)
def test_the_rule_follows_the_data_and_the_mask_the_rule(
    manifest: SimpleNamespace, changes: dict, seen: str, masked: bool, prior: bool
) -> None:
    config = with_seen_rule(small_config(**changes, objective__enhancer=None), manifest)
    assert (config.evaluate.seen, config.objective.retrieval.mask_seen_negatives) == (seen, masked)
    assert needs_prior_items(config) == prior
