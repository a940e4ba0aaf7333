"""What a table says about items that users had met before."""

from __future__ import annotations

from typing import Any

from unigrf_dist.data.manifest import Manifest
from unigrf_dist.data.seen_rule import SeenRule, items_come_again, share_of_repeats

_WORDS = {
    "exclude": "all earlier items of the user are removed",
    "keep": "items that the user has met before stay among them",
    "window": "items in the window that the model was shown are removed",
}


def seen_protocol(manifest: Manifest, seen: SeenRule, num_removed: int) -> dict[str, Any]:
    """Entries of the protocol.

    Args:
        manifest: of the data set.
        seen: the rule.
        num_removed: users whose held-out item the rule removes.
    """
    words = _WORDS[seen]
    if num_removed:
        words += f", and with them {num_removed:,} users whose held-out item is one of these"
    protocol = {"seen": seen, "seen_items": words, "users_without_target": num_removed}
    if items_come_again(manifest):
        protocol["repeats"] = f"{share_of_repeats(manifest):.0%} of the events repeat an item"
    return protocol
