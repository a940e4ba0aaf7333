"""Keys that an earlier version called otherwise: a configuration that names one is told the new name."""

from __future__ import annotations

# Old dotted key: new dotted key. An entry stays, so that a run of any age can be continued after one edit.
RENAMED_KEYS = {
    "objective.retrieval.leave_out_met": "objective.retrieval.mask_seen_negatives",
    "objective.enhancer.proposals": "objective.enhancer.candidates",
    "train.checkpoint_every_epochs": "train.checkpoint_every",
    "train.selection.every_epochs": "train.selection.every",
    "objective.enhancer.favourites": "objective.enhancer.soft_positives",
}
