"""From the section ``data`` of a configuration to the data set that it names."""

from __future__ import annotations

from unigrf_dist.config.schema import DataConfig
from unigrf_dist.data.dataset import Dataset, open_dataset
from unigrf_dist.data.split import LAST_EVENTS, SplitRule, TimeSplit


def configured_dataset(config: DataConfig) -> Dataset:
    """Open the data set of a run, under the run's split.

    Raises:
        UserError: there is no data set, or a file of it is missing.
    """
    return open_dataset(config.path).with_split(split_rule(config))


def split_rule(config: DataConfig) -> SplitRule:
    """The split that a configuration asks for, which keeps the rules between its keys."""
    validation_from, test_from = config.split.validation_from, config.split.test_from
    if validation_from is None or test_from is None:
        return LAST_EVENTS
    return TimeSplit(validation_from, test_from)
