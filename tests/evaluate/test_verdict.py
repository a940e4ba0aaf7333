"""Whether a reader is told where the model is below another scorer."""

from __future__ import annotations

from unigrf_dist.evaluate.verdict import below, left_out


def table(**values: float | None) -> dict:
    return {name.replace("_at_", "@"): {"value": value} for name, value in values.items()}


def tables(retrieval: dict, **ranking: dict) -> dict:
    return {"retrieval": retrieval, "ranking": ranking}


def test_every_metric_in_which_another_is_better_is_named() -> None:
    model = tables(table(hr_at_10=0.3, mrr=0.2), like=table(auc=0.7, log_loss=0.5, ece=0.1))
    others = {
        "transition_knn": tables(table(hr_at_10=0.31, mrr=0.21)),
        "ease": tables(table(hr_at_10=0.3, mrr=0.1)),
        "label_regression": tables({}, like=table(auc=0.6, log_loss=0.4, ece=0.01)),
    }
    assert below(model, others) == [
        "the model is below transition kNN in hr@10, mrr",
        "the model is below regression on means in log_loss",
    ]


def test_of_several_tasks_the_task_is_named() -> None:
    model = tables({}, like=table(auc=0.7), click=table(auc=None))
    others = {"user_item_mean": tables({}, like=table(auc=0.8), click=table(auc=0.5))}
    assert below(model, others) == ["the model is below user + item mean in auc of like, auc of click"]


def test_what_was_left_out_comes_with_its_reason() -> None:
    assert left_out({"ease": "12,611 items, more than 8,000"}) == ["no EASE: 12,611 items, more than 8,000"]
