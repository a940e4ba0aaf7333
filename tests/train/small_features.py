"""Side features for runs without a data set on disk."""

from __future__ import annotations

import torch
from torch import Tensor

from unigrf_dist.config.schema import Config
from unigrf_dist.data.feature_files import ItemCodes
from unigrf_dist.model.side_features import SideFeatures

USER_FEATURES = {"gender": 3, "age": 8}
USER_CODES = torch.tensor([[[1, 7]], [[2, 0]], [[0, 3]]])
"""Of one user each."""
FEATURES = {"model__item_features": ["genre", "year", "brand"], "model__user_features": ["gender", "age"]}
"""Change of configuration that names all features."""


def small_features(config: Config, num_items: int) -> SideFeatures:
    """The features that ``config`` names; ``brand`` has more codes than are looked up whole."""
    generator = torch.Generator().manual_seed(11)

    def draw(high: int, number: int) -> Tensor:
        return torch.randint(high, (number,), generator=generator, dtype=torch.int32)

    counts = draw(4, num_items)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int32), counts.cumsum(0, dtype=torch.int32)])
    known = {
        "genre": ItemCodes(draw(6, int(offsets[-1])), offsets, 6),
        "year": ItemCodes(draw(5, num_items), None, 5),
        "brand": ItemCodes(draw(2000, num_items), None, 2000),
    }
    return SideFeatures(
        {name: known[name] for name in config.model.item_features},
        {name: USER_FEATURES[name] for name in config.model.user_features},
        torch.device("cpu"),
    )
