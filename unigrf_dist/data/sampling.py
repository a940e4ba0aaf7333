"""Row groups of a data set for statistics: all of them, or a sample spread evenly over the shards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from unigrf_dist.data.dataset import Dataset, RowGroupReader, RowGroups
from unigrf_dist.data.sequences import Sequences

# The distribution of lengths needs no more: at 256 users each these are 100,000 users, read in a second.
SAMPLED_ROW_GROUPS = 400


def sample_row_groups(dataset: Dataset, limit: int | None = None) -> Iterator[Sequences]:
    """Read row groups in the order of the shards, one at a time.

    Args:
        dataset: data set to read.
        limit: most row groups to read, taken at equal distances; None reads all of them.

    Raises:
        UserError: a shard cannot be read.
    """
    groups, reader = RowGroups.of(dataset.manifest), RowGroupReader(dataset)
    stride = 1 if limit is None else max(1, -(-len(groups.shard) // limit))
    for shard, group in zip(groups.shard[::stride], groups.group[::stride], strict=True):
        yield reader.read(int(shard), int(group))


def sample_lengths(dataset: Dataset, limit: int | None = SAMPLED_ROW_GROUPS) -> NDArray[np.int64]:
    """``[n]`` events of each user in the sampled row groups.

    Args:
        dataset: data set to read.
        limit: most row groups to read; None reads all of them.

    Raises:
        UserError: a shard cannot be read.
    """
    return np.concatenate([sequences.lengths for sequences in sample_row_groups(dataset, limit)])
