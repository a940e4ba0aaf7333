"""What the dense ids of a data set stand for: a checkpoint fits where they stand for the same, or for more.

Dense ids are given once: what a later day brings comes behind the ids that there are. So the first ids of a grown
data set mean what they meant before, and their fingerprint is that of the data set before it grew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from unigrf_dist.data.dataset import Dataset


@dataclass(frozen=True)
class Vocabularies:
    """Fingerprints of the first ids of every kind.

    Attributes:
        items: fingerprint of the first so many items.
        behaviours: named values of every behaviour code.
        features: fingerprint of the first so many codes of each side feature, by the name of its table.
    """

    items: Callable[[int], str]
    behaviours: Sequence[Mapping[str, float]] = ()
    features: Mapping[str, Callable[[int], str]] = field(default_factory=dict)

    @staticmethod
    def of(dataset: Dataset) -> Vocabularies:
        """Those of a data set, which is read when they are asked for."""

        def codes(owner: Any, name: str) -> Callable[[int], str]:
            return lambda first: fingerprint(dataset.feature_values(owner, name)[:first])

        return Vocabularies(
            dataset.catalogue_fingerprint,
            dataset.manifest.behaviours,
            {f"{each.owner}_{each.name}": codes(each.owner, each.name) for each in dataset.manifest.features},
        )

    def signature(self, num_items: int, cardinalities: Mapping[str, int]) -> dict[str, Any]:
        """What a checkpoint keeps of them.

        Args:
            num_items: rows of the item table.
            cardinalities: rows of the table of each side feature that the model uses, by the table's name.
        """
        return {
            "catalogue": self.items(num_items),
            "behaviours": [dict(values) for values in self.behaviours],
            "vocabularies": {
                name: self.features[name](n) for name, n in cardinalities.items() if name in self.features
            },
        }

    def begins_with_behaviours(self, stored: Sequence[Mapping[str, float]]) -> bool:
        """Whether the first behaviour codes are ``stored``.

        A new event type is a further value of all behaviours, 0 for those that were there before.
        """
        if len(stored) > len(self.behaviours):
            return False
        return all(
            old.items() <= new.items() and not any(value for name, value in new.items() if name not in old)
            for old, new in zip(stored, self.behaviours, strict=False)
        )


def fingerprint(values: pa.Array) -> str:
    """Hexadecimal SHA-256 of integers or strings in their order; a missing string counts as an empty one."""
    if pa.types.is_integer(values.type):
        return hashlib.sha256(values.to_numpy().tobytes()).hexdigest()
    digest = hashlib.sha256()
    for value in values.to_pylist():
        digest.update((value or "").encode() + b"\0")
    return digest.hexdigest()
