"""Samples of users by a hash."""

from __future__ import annotations

import numpy as np
import pytest

from unigrf_dist.data import user_sample
from unigrf_dist.data.user_sample import drawn, drawn_users


def test_a_sample_has_about_the_size_asked_for_and_is_spread_evenly() -> None:
    for num_users, about in ((1_000_000, 50_000), (300_000, 100_000)):
        users = drawn_users(num_users, about)
        assert abs(len(users) - about) < 5 * about**0.5
        of_tenths = np.histogram(users, bins=10, range=(0, num_users))[0]
        assert (abs(of_tenths - about / 10) < 5 * (about / 10) ** 0.5).all()
        # No pattern of neighbours either: gaps spread as those of independent draws do.
        gaps = np.diff(users)
        assert np.mean(gaps == 1) == pytest.approx(about / num_users, rel=0.1)


def test_a_sample_does_not_depend_on_the_pieces_it_is_drawn_in(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn_users(1000, 200)
    monkeypatch.setattr(user_sample, "_IDS_AT_A_TIME", 7)
    assert drawn_users(1000, 200).tolist() == whole.tolist() == sorted(set(whole.tolist()))
    assert drawn(whole, 1000, 200).all()
    assert set(whole.tolist()) <= set(drawn_users(1000, 300).tolist())
    assert drawn_users(1000, 1000).tolist() == list(range(1000))
