"""Both losses of UniGRF by definition: loops over users, events, pairs and negatives, in float64.

Written from docs/method.md. Nothing of the model's code is called: no mask, no pair list, no kernel.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tests.model.reference_transducer import Parameters, User, Vectors, hidden_states, users_of
from unigrf_dist.config.schema import Config, EnhancerConfig
from unigrf_dist.data.batch import JaggedBatch

NO_ITEM = -1
LEAST_LENGTH = 1e-6  # that a vector is divided by
LEAST_DEVIATION = 1e-6
SHARE_BOUNDS = (1e-12, 1 - 1e-12)


@dataclass
class Targets:
    """One user's enhancer targets, as indices among the candidates."""

    above_threshold: list[int] = field(default_factory=list)
    hard_negatives: list[int] = field(default_factory=list)
    soft_positives: list[int] = field(default_factory=list)


@dataclass
class Expected:
    """What the model should say of a batch.

    Attributes:
        retrieval, ranking: ``[]``, the tasks' sums, differentiable in parameters and vectors.
        counts: query–positive pairs and labels behind them.
        sq_norms: squared norms of the two sums' gradients with respect to the hidden states.
        hidden: ``[D]`` states of each user's tokens.
        next_candidates: each user's candidates of the next round, best first.
        targets: each user's enhancer targets.
        masked: why negatives were masked, and how often: "positive", "window", "prior", "above_threshold".
    """

    retrieval: Tensor
    ranking: Tensor
    counts: tuple[int, int]
    sq_norms: tuple[float, float]
    hidden: list[list[Tensor]]
    next_candidates: list[list[int]]
    targets: list[Targets]
    masked: Counter[str]


@dataclass
class Reference:
    """The method under a given configuration.

    Args:
        config: configuration of the run.
        labels: ``[num_behaviours][A]`` labels, NaN for none.
        popularity: ``[num_items]`` training events of each item.
        parameters: dense parameters by name, float64.
    """

    config: Config
    labels: Sequence[Sequence[float]]
    popularity: Sequence[int]
    parameters: Parameters

    def expected(
        self,
        batch: JaggedBatch,
        vectors: Vectors,
        negative_ids: list[int],
        candidate_ids: Tensor | None = None,
    ) -> Expected:
        """Both sums over ``batch``, with everything that belongs to them."""
        self._num_events, self._masked = batch.num_events, Counter[str]()
        self._negatives = list(zip(negative_ids, map(self._compared, vectors.negatives), strict=True))
        users = users_of(batch, vectors, candidate_ids)
        max_tokens = 2 * (self.config.data.max_events + 1)
        hidden = [hidden_states(user, self.parameters, self.config.model, max_tokens) for user in users]
        targets = [self._targets(user, states) for user, states in zip(users, hidden, strict=True)]
        retrieval = ranking = torch.zeros((), dtype=torch.float64)
        pairs = labelled = 0
        for user, states, target in zip(users, hidden, targets, strict=True):
            retrieval, pairs = (
                retrieval + self._retrieval(user, states, target),
                pairs + len(user.items[max(user.num_context, 1) :]),
            )
            loss, number = self._ranking(user, states)
            ranking, labelled = ranking + loss, labelled + number
        return Expected(
            retrieval,
            ranking,
            (pairs, labelled),
            (_squared_norm(retrieval, hidden), _squared_norm(ranking, hidden)),
            hidden,
            [self._next_candidates(user, states) for user, states in zip(users, hidden, strict=True)],
            targets,
            self._masked,
        )

    def ranking_logits(self, state: Tensor) -> list[Tensor]:
        """``[]`` logit of each task at an item token's ``[D]`` state."""
        weight, bias = self.parameters["head_weight"], self.parameters["head_bias"]
        return [state @ weight[task] + bias[task] for task in range(len(bias))]

    def _retrieval(self, user: User, states: list[Tensor], targets: Targets) -> Tensor:
        loss = torch.zeros((), dtype=torch.float64)
        for event in range(max(user.num_context - 1, 0), len(user.items) - 1):
            query, positive = states[2 * event + 1], user.item_vectors[event + 1]
            loss = loss + self._pair_loss(query, positive, user.items[event + 1], user, targets, event)
        last = len(user.items) - 1
        for index in targets.soft_positives:
            query, positive = states[2 * last + 1], user.candidate_vectors[index]
            of_pair = self._pair_loss(query, positive, user.candidates[index], user, targets, last)
            assert self.config.objective.enhancer is not None
            loss = loss + self.config.objective.enhancer.soft_weight * of_pair
        return loss

    def _pair_loss(
        self, query: Tensor, positive: Tensor, positive_id: int, user: User, targets: Targets, event: int
    ) -> Tensor:
        """Softmax cross entropy of one pair, whose query stands after ``event``."""
        above = {user.candidates[index] for index in targets.above_threshold}
        query, temperature = self._compared(query), self.config.objective.retrieval.temperature
        own = query @ self._compared(positive) / temperature - self._log_q(positive_id)
        logits = [own]
        for item, vector in self._negatives:
            if not self._is_masked(item, positive_id, user, above, event):
                logits.append(query @ vector / temperature - self._log_q(item))
        for index in targets.hard_negatives:
            if user.candidates[index] != positive_id:
                logits.append(query @ self._compared(user.candidate_vectors[index]) / temperature)
        return torch.stack(logits).exp().sum().log() - own

    def _is_masked(self, item: int, positive_id: int, user: User, above: set[int], event: int) -> bool:
        reasons = ["positive"] if item == positive_id else []
        if self.config.objective.retrieval.mask_seen_negatives is not False:
            reasons += ["window"] if item in user.items[: event + 1] else []
            reasons += ["prior"] if item in user.prior_items else []
        reasons += ["above_threshold"] if item in above else []
        if len(reasons) == 1:
            self._masked[reasons[0]] += 1
        return bool(reasons)

    def _ranking(self, user: User, states: list[Tensor]) -> tuple[Tensor, int]:
        loss, number = torch.zeros((), dtype=torch.float64), 0
        for event, behaviour in enumerate(user.behaviours):
            if event < user.num_context:
                continue
            logits = self.ranking_logits(states[2 * event])
            for task, (logit, label) in enumerate(zip(logits, self.labels[behaviour], strict=True)):
                if math.isnan(label):
                    continue
                probability = 1 / (1 + (-logit).exp())
                cross_entropy = -(label * probability.log() + (1 - label) * (1 - probability).log())
                loss = loss + self.config.objective.ranking[task].weight * cross_entropy
                number += 1
        return loss, number

    def _targets(self, user: User, states: list[Tensor]) -> Targets:
        enhancer = self.config.objective.enhancer
        if enhancer is None or not user.items:
            return Targets()
        query = self._compared(states[2 * len(user.items) - 1])
        scores, probabilities = {}, {}
        for index, item in enumerate(user.candidates):
            if item != NO_ITEM:
                state = states[2 * len(user.items) + index]
                probabilities[index] = torch.sigmoid(self.ranking_logits(state)[0]).item()
                scores[index] = (query @ self._compared(user.candidate_vectors[index])).item()
        return _selected(scores, probabilities, enhancer)

    def _next_candidates(self, user: User, states: list[Tensor]) -> list[int]:
        enhancer = self.config.objective.enhancer
        number = 0 if enhancer is None else enhancer.candidates
        if not user.items:
            return [NO_ITEM] * number
        pool = {
            item: self._compared(vector)
            for item, vector in zip(user.candidates, user.candidate_vectors, strict=True)
            if item != NO_ITEM
        }
        pool |= dict(self._negatives)
        query = states[2 * len(user.items) - 1]
        unseen = [item for item in pool if item not in user.items and item not in user.prior_items]
        best = sorted(unseen, key=lambda item: -(query @ pool[item]).item())[:number]
        return best + [NO_ITEM] * (number - len(best))

    def _compared(self, vector: Tensor) -> Tensor:
        if not self.config.objective.retrieval.normalize:
            return vector
        return vector / (vector * vector).sum().sqrt().clamp_min(LEAST_LENGTH)

    def _log_q(self, item: int) -> float:
        """Log of how often the item is expected among the negatives; 0 where all are equally likely."""
        retrieval = self.config.objective.retrieval
        kind, popular = retrieval.negatives, retrieval.distribution == "log_popularity"
        if not retrieval.logq_correction or kind == "full" or (kind == "sampled" and not popular):
            return 0.0
        expected = 0.0
        if kind in ("sampled", "mixed"):
            number = len(self.popularity)
            more_popular = sum(count > self.popularity[item] for count in self.popularity)
            zipf = math.log((more_popular + 2) / (more_popular + 1)) / math.log(number + 1)
            expected += retrieval.num_negatives * (zipf if popular else 1 / number)
        if kind in ("in_batch", "mixed"):
            least, most = SHARE_BOUNDS
            share = min(max(self.popularity[item] / sum(self.popularity), least), most)
            # As log1p and expm1, because a share may be too small to be told from 0 beside 1.
            expected += -math.expm1(self._num_events * math.log1p(-share))
        return math.log(expected)


def _selected(scores: dict[int, float], probabilities: dict[int, float], config: EnhancerConfig) -> Targets:
    above = [index for index, probability in probabilities.items() if probability > config.threshold]
    score, probability = _standardised(scores), _standardised(probabilities)
    others = [index for index in scores if index not in above]
    return Targets(
        above,
        sorted(others, key=lambda index: probability[index] - score[index])[: config.hard_negatives],
        sorted(above, key=lambda index: -probabilities[index])[: config.soft_positives],
    )


def _standardised(values: dict[int, float]) -> dict[int, float]:
    number = max(len(values), 1)
    mean = sum(values.values()) / number
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values.values()) / number)
    return {index: (value - mean) / max(deviation, LEAST_DEVIATION) for index, value in values.items()}


def _squared_norm(loss: Tensor, hidden: list[list[Tensor]]) -> float:
    if not loss.requires_grad:
        return 0.0
    states = [state for of_user in hidden for state in of_user]
    gradients = torch.autograd.grad(loss, states, retain_graph=True, allow_unused=True)
    return sum((gradient * gradient).sum().item() for gradient in gradients if gradient is not None)
