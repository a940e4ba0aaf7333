"""How active synthetic users are, and when: lengths of their histories and times of their events."""

from __future__ import annotations

import numpy as np

from unigrf_dist.synthetic.world import IntArray

MIN_LENGTH = 5
_LENGTH_SHAPE = 1.5
# First events are spread over the year 2020.
_START, _START_SPREAD_SECONDS = 1_577_836_800, 365 * 86_400
_SESSION_EVENTS, _GAP_SECONDS, _PAUSE_SECONDS = 8, 90.0, 2.5 * 86_400


def draw_lengths(num_users: int, num_items: int, mean: float, random: np.random.Generator) -> IntArray:
    """``[num_users]`` int64 lengths of histories, descending."""
    beyond = random.gamma(_LENGTH_SHAPE, (mean - MIN_LENGTH) / _LENGTH_SHAPE, size=num_users)
    longest = min(num_items // 4, int(8 * mean))
    return -np.sort(-np.minimum(MIN_LENGTH + np.rint(beyond).astype(np.int64), longest))


def draw_times(num_users: int, num_events: int, random: np.random.Generator) -> IntArray:
    """``[num_users, num_events]`` int64 seconds, ascending within a user, in sessions."""
    shape = (num_users, num_events)
    gaps = random.exponential(_GAP_SECONDS, size=shape)
    pauses = random.random(shape) < 1 / _SESSION_EVENTS
    gaps[pauses] += random.exponential(_PAUSE_SECONDS, size=int(pauses.sum()))
    gaps[:, 0] = _START + random.random(num_users) * _START_SPREAD_SECONDS
    return np.floor(np.cumsum(gaps, axis=1)).astype(np.int64)
