"""Mistakes thought out by hand, each one that somebody could make who has the method only half in mind."""

from __future__ import annotations

from typing import NamedTuple


class Edit(NamedTuple):
    """A mistake thought out by hand, which no operator makes.

    Attributes:
        path: file below the root of the repository.
        before: text that the file holds exactly once.
        after: text in its place.
    """

    path: str
    before: str
    after: str


_UNIGRF = "unigrf_dist/model/unigrf.py"
_ENHANCER = "unigrf_dist/objective/enhancer/"
BY_HAND = (
    # A task that is observed but worthless must not be confused with one that was not observed.
    Edit(
        "unigrf_dist/objective/weighter.py",
        "torch.isfinite(losses) & torch.isfinite(grad_norms)",
        "torch.isfinite(losses)",
    ),
    # The second weight is bounded by the first.
    Edit(
        "unigrf_dist/objective/weighter.py",
        "torch.cat([first, NUM_TASKS - first])",
        "torch.cat([first, mixed[1:]])",
    ),
    # Warm-up counts from the first step.
    Edit("unigrf_dist/objective/weighter.py", "self._steps <= self.config", "self._steps < self.config"),
    # The bias of a mean's start.
    Edit("unigrf_dist/objective/smoothing.py", "self._sum / self._weight.clamp_min(1e-12)", "self._sum"),
    # An item's label is read where the item stands, before its behaviour is known.
    Edit(_UNIGRF, "ranking_rows=layout.item_rows", "ranking_rows=layout.behaviour_rows"),
    # Nor may evaluation ask with what comes after the event that it predicts.
    Edit(_UNIGRF, "hidden[layout.behaviour_rows[last - 1]]", "hidden[layout.behaviour_rows[last]]"),
    Edit(_UNIGRF, "hidden[layout.behaviour_rows[last - 1]]", "hidden[layout.item_rows[last]]"),
    Edit(_UNIGRF, "hidden[layout.item_rows[last]]", "hidden[layout.behaviour_rows[last]]"),
    # What is configured reaches the loss.
    Edit(_UNIGRF, "task_weights=self.task_weights", "task_weights=torch.ones_like(self.task_weights)"),
    Edit(_UNIGRF, "weight=self.objective.enhancer.soft_weight", "weight=1.0"),
    Edit(_UNIGRF, "dropout=self.dropout, seed=seed,", "dropout=0.0, seed=seed,"),
    # Candidates: whose state says their probability, where they stand, what they teach.
    Edit(_UNIGRF, "hidden[layout.candidate_rows]", "hidden[layout.candidate_rows.flip(1)]"),
    Edit(
        _UNIGRF,
        "batch.lengths.clamp_max(self.positions.num_embeddings - 1)",
        "(batch.lengths - 1).clamp_min(0)",
    ),
    Edit(
        _UNIGRF,
        '"user_negatives": targets.hard_negative_vectors,',
        '"user_negatives": targets.hard_negative_vectors * 0,',
    ),
    Edit(_UNIGRF, "(vectors + positions[:, None]).detach()", "(vectors + positions[:, None])"),
    # Side features enter tokens, and not what hidden states are compared with.
    Edit(
        _UNIGRF,
        "self._sums(hidden, layout, items, batch",
        "self._sums(hidden, layout, items if side is None else items + side, batch",
    ),
    # The correction of one sampler for the negatives, of none for the positives.
    Edit(_UNIGRF, "positive_log_q=None if log_q is None else log_q(pairs.positive_ids)", "positive_log_q=None"),
    Edit(_ENHANCER + "candidates.py", "scores.topk(min(", "scores.neg().topk(min("),
    Edit(_ENHANCER + "candidates.py", "torch.mm(queries, vectors.T", "torch.mm(queries, vectors.roll(1, 0).T"),
    Edit(_ENHANCER + "enhancer.py", "self._comparable(vectors)).float()", "vectors).float()"),
    Edit(_ENHANCER + "targets.py", "valid & ~above, ids", "valid, ids"),
    # The negatives' own counts, not those of the other sampler.
    Edit("unigrf_dist/objective/negatives.py", "expected = expected + self._expected_samples(ids)", "pass"),
    Edit("unigrf_dist/objective/negatives.py", "-torch.expm1(batch.num_events * torch.log1p(-share))", "share"),
    # The table's rate, and gradients that are averaged over ranks.
    Edit("unigrf_dist/train/step.py", "self.learning_rate * self._table_rate_ratio", "self.learning_rate"),
    Edit("unigrf_dist/train/step.py", "local_share * self.world_size", "local_share"),
    Edit("unigrf_dist/train/step.py", "(task_sums / counts * weights).sum()", "(task_sums / counts).sum()"),
    # A candidate's query is the time of the user's last event.
    Edit(
        "unigrf_dist/model/tokens.py",
        "query_times=pack(times, next_times, last",
        "query_times=pack(times, times, last",
    ),
    # Half of the ties stand before the target.
    Edit("unigrf_dist/evaluate/metrics.py", "(equal + 1) // 2", "equal // 2"),
    Edit("unigrf_dist/evaluate/metrics.py", "better + (equal + 1) // 2", "better"),
    # Of each user's own, not of all events together.
    Edit("unigrf_dist/evaluate/training_statistics.py", ".where(before >= starts, torch.nan)", ""),
    Edit(
        "unigrf_dist/evaluate/scorer.py",
        "batch.behaviours[batch.offsets[1:] - 1]",
        "batch.behaviours[batch.offsets[:-1]]",
    ),
    Edit("unigrf_dist/evaluate/catalogue.py", "scores[here, targets[here] - first] = -torch.inf", "pass"),
    Edit(
        "unigrf_dist/evaluate/sharded_scores.py",
        "norm.clamp_min(SMALLEST_NORM) if self.normalize",
        "norm * 0 + 1 if self.normalize",
    ),
)
