"""The side features that a configuration names, read from its data set."""

from __future__ import annotations

import torch

from unigrf_dist.config import Config
from unigrf_dist.data import Dataset
from unigrf_dist.model.side_features import SideFeatures


def side_features(config: Config, dataset: Dataset, device: torch.device) -> SideFeatures:
    """The side features that the configuration names, all of which the data set has."""
    of_users = dataset.manifest.features_of("user")
    return SideFeatures(
        {name: dataset.item_feature(name) for name in config.model.item_features},
        {name: of_users[name].cardinality for name in config.model.user_features},
        device,
    )
