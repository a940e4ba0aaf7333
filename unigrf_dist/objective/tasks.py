"""The two tasks of the joint objective, by name.

Per-task values travel as ``[2]`` tensors, so that one all-reduce carries them; this is the place that says
which element is whose.
"""

from __future__ import annotations

from collections.abc import Sequence

TASKS = ("retrieval", "ranking")
RETRIEVAL, RANKING = range(len(TASKS))


def by_task(prefix: str, values: Sequence[float]) -> dict[str, float]:
    """``[2]`` values as ``{prefix_retrieval: …, prefix_ranking: …}``."""
    return {f"{prefix}_{task}": value for task, value in zip(TASKS, values, strict=True)}
