"""Which items leave the ranking because a user has met them, and what is chosen where nobody says."""

from __future__ import annotations

from typing import Literal

from unigrf_dist.data.manifest import Manifest

SeenRule = Literal["exclude", "keep", "window"]
"""``exclude`` all items met before, ``keep`` all, or leave out those in the ``window`` shown to the model."""

REPEATS_FROM = 0.01
"""Data of which a larger share of the events repeat an item are data in which items come again."""


def share_of_repeats(manifest: Manifest) -> float:
    """Share of the events whose item the user had met before; 0 where nobody counted them."""
    return (manifest.num_repeats or 0) / max(manifest.num_events, 1)


def items_come_again(manifest: Manifest) -> bool:
    """Whether so many events repeat an item that a ranking without the items met before would miss the point."""
    return share_of_repeats(manifest) > REPEATS_FROM


def seen_rule(configured: SeenRule | None, manifest: Manifest) -> SeenRule:
    """What was configured, else ``keep`` where items come again and ``exclude`` elsewhere."""
    return configured or ("keep" if items_come_again(manifest) else "exclude")
