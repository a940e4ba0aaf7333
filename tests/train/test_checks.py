"""What `unigrf train` and a study refuse before a rank starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.data.small_sets import distinct_users, write_users
from tests.train.small_run import small_config
from unigrf_dist.data.configured import split_rule
from unigrf_dist.errors import UserError
from unigrf_dist.train.checks import refuse_unfit


@pytest.mark.parametrize(
    ("changes", "ranks", "told"),
    [
        ({"objective__ranking": [{"rule": "stars > 1"}]}, 1, "objective.ranking: .*needs 'stars'"),
        ({"model__item_features": ["brand"]}, 1, "model.item_features names brand"),
        ({"train__selection": {"metric": "ndcg@9"}}, 1, "train.selection.metric is 'ndcg@9'; allowed: hr@1"),
        ({"train__selection": {"metric": "auc[like == 1]"}}, 1, r"as auc\[rating >= 4\]$"),
        ({"data__partitions": 2}, 3, "data.partitions = 2, but 3 ranks"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], ranks: int, told: str
) -> None:
    dataset = write_users(tmp_path / "data", distinct_users([5, 3, 4]))
    refuse_unfit(small_config(), dataset, 2)
    with pytest.raises(UserError, match=told):
        refuse_unfit(small_config(**changes), dataset, ranks)


def test_data_without_validation_events_are_refused(tmp_path: Path) -> None:
    dataset = write_users(tmp_path / "data", distinct_users([2, 1, 2]))
    with pytest.raises(UserError, match="nothing could be validated"):
        refuse_unfit(small_config(), dataset, 1)


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        (0, 5, r"validation_from = 0: no event is before; .* has events from 0 to 2003 \(seconds\)"),
        (2, 3000, "test_from = 3000: no user has a test event and one before it"),
        (500, 600, "validation_from = 500: no user has a validation event and one before it"),
    ],
)
def test_a_split_in_time_without_users_is_refused(tmp_path: Path, start: int, end: int, told: str) -> None:
    """Users of 5, 3 and 4 events, at 0 to 4, 1000 to 1002 and 2000 to 2003."""
    dataset = write_users(tmp_path / "data", distinct_users([5, 3, 4]))

    def refuse(validation_from: int, test_from: int) -> None:
        split = {"kind": "time", "validation_from": validation_from, "test_from": test_from}
        config = small_config(data__split=split)
        refuse_unfit(config, dataset.with_split(split_rule(config.data)), 1)

    refuse(2, 4)
    with pytest.raises(UserError, match=told):
        refuse(start, end)
