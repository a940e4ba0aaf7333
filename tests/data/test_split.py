"""The split rule, on lengths around its threshold."""

from __future__ import annotations

import numpy as np

from unigrf_dist.data.split import has_held_out, held_out_position, num_training_events

LENGTHS = np.array([1, 2, 3, 4, 100])


def test_users_of_three_events_and_more_have_held_out_ones() -> None:
    assert has_held_out(LENGTHS).tolist() == [False, False, True, True, True]


def test_all_but_the_last_two_are_for_training() -> None:
    assert num_training_events(LENGTHS).tolist() == [1, 2, 1, 2, 98]


def test_the_last_is_test_and_the_one_before_validation() -> None:
    assert held_out_position(LENGTHS[2:], "test").tolist() == [2, 3, 99]
    assert held_out_position(LENGTHS[2:], "validation").tolist() == [1, 2, 98]


def test_a_refit_trains_to_the_validation_event_and_deployment_to_the_last() -> None:
    assert num_training_events(LENGTHS, "validation").tolist() == [1, 2, 2, 3, 99]
    assert num_training_events(LENGTHS, "test").tolist() == [1, 2, 3, 4, 100]
