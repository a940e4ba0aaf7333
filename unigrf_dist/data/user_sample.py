"""Some users of a data set, drawn by a hash of their ids: the same ones whoever asks, on any number of ranks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_IDS_AT_A_TIME = 1 << 20


def drawn(user_ids: NDArray[np.int64], num_users: int, about: int) -> NDArray[np.bool_]:
    """``[N]`` bool, whether each user is drawn.

    Args:
        user_ids: ``[N]`` dense ids.
        num_users: users that the sample is drawn from.
        about: size of the sample; it comes out larger or smaller by about its square root.
    """
    if about >= num_users:
        return np.ones(len(user_ids), dtype=np.bool_)
    return _mixed(user_ids) < np.uint64((2**64 - 1) * about // num_users)


def drawn_users(num_users: int, about: int) -> NDArray[np.int64]:
    """Dense ids of a sample of all users, ascending; arguments as for ``drawn``."""
    starts = range(0, num_users, _IDS_AT_A_TIME)
    blocks = (np.arange(start, min(start + _IDS_AT_A_TIME, num_users), dtype=np.int64) for start in starts)
    return np.concatenate([block[drawn(block, num_users, about)] for block in blocks])


def _mixed(ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014): neighbouring ids are far apart."""
    mixed = ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
