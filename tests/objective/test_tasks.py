"""Which element of a per-task tensor is whose."""

from __future__ import annotations

from unigrf_dist.objective.tasks import RANKING, RETRIEVAL, TASKS, by_task


def test_retrieval_comes_first_everywhere() -> None:
    assert (TASKS[RETRIEVAL], TASKS[RANKING]) == ("retrieval", "ranking")
    assert (RETRIEVAL, RANKING) == (0, 1)
    assert by_task("loss", [3.0, 5.0]) == {"loss_retrieval": 3.0, "loss_ranking": 5.0}
