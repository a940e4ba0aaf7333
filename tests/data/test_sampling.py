"""Row groups for statistics: all of them, or a sample at equal distances."""

from __future__ import annotations

import pytest

from tests.evaluate.small_data import drawn_users, write_users
from unigrf_dist.data import Dataset
from unigrf_dist.data.sampling import sample_lengths, sample_row_groups

USERS = drawn_users(20)  # row groups of 3 users, the last one of 2; shards of 12 users


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_users(tmp_path_factory.mktemp("sampled") / "data", USERS)


def test_without_a_limit_every_user_is_read_once(dataset: Dataset) -> None:
    assert sample_lengths(dataset, None).tolist() == [len(user) for user in USERS]
    assert [len(each.lengths) for each in sample_row_groups(dataset)] == [3, 3, 3, 3, 3, 3, 2]


def test_a_sample_takes_row_groups_at_equal_distances_over_all_shards(dataset: Dataset) -> None:
    # 7 row groups, at most 3 of them: every third.
    assert sample_lengths(dataset, 3).tolist() == [len(USERS[i]) for i in (0, 1, 2, 9, 10, 11, 18, 19)]


def test_a_limit_above_the_number_of_row_groups_reads_all(dataset: Dataset) -> None:
    assert len(sample_lengths(dataset, 100)) == 20
