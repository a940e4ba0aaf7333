"""The planted optimum, against the definition: chances of whole histories, item by item and taste by taste."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from unigrf_dist.data import EvaluationStream, open_dataset
from unigrf_dist.synthetic import synthesize
from unigrf_dist.synthetic.world import World, build_world

SEED, NUM_ITEMS, NUM_USERS = 3, 61, 400
SIZES = {"num_items": NUM_ITEMS, "num_groups": 4, "num_tastes": 3, "successor_share": 0.3, "zipf_exponent": 0.9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "set"
    synthesize(out, num_users=NUM_USERS, mean_length=9, seed=SEED, **SIZES)  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(random=np.random.default_rng([SEED, 0]), **SIZES)  # type: ignore[arg-type]


class Definition:
    """The generative model as its documentation has it, one number at a time."""

    def __init__(self, world: World) -> None:
        self.world = world

    def weight(self, item: int, last: int | None, taste: int) -> float:
        """Chance of drawing ``item``, before seen items are drawn again."""
        world = self.world
        group = world.group_of[item]
        if last is None:
            return float(world.group_chances[-1, taste, group] * world.popularity[item])
        by_group = world.group_chances[world.group_of[last], taste, group] * world.popularity[item]
        successors = zip(world.successors[last], world.successor_chances, strict=True)
        by_succession = sum(chance for successor, chance in successors if successor == item)
        return float((1 - world.successor_share) * by_group + world.successor_share * by_succession)

    def next_chances(self, history: list[int], taste: int) -> dict[int, float]:
        last = history[-1] if history else None
        weights = {i: self.weight(i, last, taste) for i in range(self.world.num_items) if i not in history}
        total = sum(weights.values())
        return {item: weight / total for item, weight in weights.items()}

    def rating_chances(self, item: int, taste: int) -> list[float]:
        utility = self.world.affinity[taste, self.world.group_of[item]] + self.world.quality[item]
        above = [1 / (1 + math.exp(threshold - utility)) for threshold in (-2.8, -1.6, 0.0, 1.8)]
        return [high - low for high, low in itertools.pairwise([1.0, *above, 0.0])]

    def log_chance(self, history: list[tuple[int, int]], taste: int) -> float:
        """Log probability of a whole history of items and ratings, given a taste."""
        items = [item for item, _ in history]
        total = 0.0
        for position, (item, rating) in enumerate(history):
            total += math.log(self.next_chances(items[:position], taste)[item])
            total += math.log(self.rating_chances(item, taste)[rating])
        return total

    def predict(self, history: list[tuple[int, int]], item: int) -> tuple[dict[int, float], float]:
        """Chances of all unseen items to come next, and the chance that ``item`` is rated 4 or 5 if it does."""
        tastes = range(self.world.num_tastes)
        likelihood = [math.exp(self.log_chance(history, taste)) for taste in tastes]
        by_taste = [self.next_chances([seen for seen, _ in history], taste) for taste in tastes]
        items = {
            i: sum(p * chances[i] for p, chances in zip(likelihood, by_taste, strict=True)) / sum(likelihood)
            for i in by_taste[0]
        }
        joint = [p * chances[item] for p, chances in zip(likelihood, by_taste, strict=True)]
        positive = [sum(self.rating_chances(item, taste)[3:]) for taste in tastes]
        return items, sum(p * rated for p, rated in zip(joint, positive, strict=True)) / sum(joint)


@pytest.fixture(scope="module", params=["validation", "test"])
def predicted(request: pytest.FixtureRequest, folder: Path, world: World) -> dict[str, Any]:
    """Item chances, true item, chance of a rating of 4 or 5 and truth, for every user of a split."""
    in_world = np.argsort(world.item_ids)
    definition = Definition(world)
    chances, targets, scores, positive = [], [], [], []
    stream = EvaluationStream(
        open_dataset(folder), split=request.param, batch_users=50, max_events=1000, rank=0, world_size=1
    )
    for evaluated in stream:
        batch = evaluated.batch
        for start, stop in itertools.pairwise(batch.offsets.tolist()):
            items = in_world[batch.item_ids[start:stop]].tolist()
            *history, (target, rating) = zip(items, batch.behaviours[start:stop].tolist(), strict=True)
            item_chances, positive_chance = definition.predict(history, target)
            chances.append(item_chances)
            targets.append(target)
            scores.append(positive_chance)
            positive.append(rating >= 3)
    return {
        "split": request.param,
        "chances": chances,
        "targets": targets,
        "scores": scores,
        "positive": positive,
    }


def test_planted_metrics_are_those_of_the_true_chances(folder: Path, predicted: dict[str, Any]) -> None:
    ranks = [
        1 + sum(chance > chances[target] for chance in chances.values())
        for chances, target in zip(predicted["chances"], predicted["targets"], strict=True)
    ]
    assert len(ranks) == NUM_USERS
    expected = {f"hr@{k}": sum(rank <= k for rank in ranks) / NUM_USERS for k in (1, 10, 50, 200)}
    for k in (10, 50, 200):
        expected[f"ndcg@{k}"] = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= k) / NUM_USERS
    expected["mrr"] = sum(1 / rank for rank in ranks) / NUM_USERS
    planted = json.loads((folder / "planted.json").read_text())[predicted["split"]]
    assert planted["retrieval"] == pytest.approx(expected, rel=1e-12)
    assert planted["ranking"] == {
        "rating >= 4": {
            "auc": pytest.approx(
                roc_auc_score(predicted["positive"], np.round(predicted["scores"], 9)), rel=1e-12
            ),
            "log_loss": pytest.approx(log_loss(predicted["positive"], predicted["scores"]), rel=1e-9),
        }
    }


def test_outcomes_are_as_frequent_as_predicted(predicted: dict[str, Any]) -> None:
    """Mean outcome minus mean chance, in standard errors: the events do follow the chances."""
    rated = np.array(predicted["scores"])
    error = math.sqrt((rated * (1 - rated)).sum()) / NUM_USERS
    assert abs(np.mean(predicted["positive"]) - rated.mean()) < 4 * error
    best = [max(chances, key=chances.__getitem__) for chances in predicted["chances"]]
    first = np.array([chances[item] for chances, item in zip(predicted["chances"], best, strict=True)])
    hits = np.mean([item == target for item, target in zip(best, predicted["targets"], strict=True)])
    assert abs(hits - first.mean()) < 4 * math.sqrt((first * (1 - first)).sum()) / NUM_USERS


def test_chances_blurred_towards_uniform_have_a_worse_log_loss(predicted: dict[str, Any]) -> None:
    """Chances mixed half and half with uniform ones: the world has structure to be learned."""
    truth = [chances[target] for chances, target in zip(predicted["chances"], predicted["targets"], strict=True)]
    blurred = [
        0.5 * chance + 0.5 / len(chances) for chance, chances in zip(truth, predicted["chances"], strict=True)
    ]
    assert np.log(truth).mean() > np.log(blurred).mean() + 0.1
