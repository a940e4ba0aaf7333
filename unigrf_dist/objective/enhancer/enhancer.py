"""The enhancer inside a forward: hidden states in, enhancer targets and the next round's candidates out.

Shapes: ``B`` users, ``C`` candidates per user, ``K`` negatives, ``D`` width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unigrf_dist.config.schema import EnhancerConfig, RetrievalConfig
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.objective.enhancer.candidates import NO_ITEM, Candidates, select_candidates
from unigrf_dist.objective.enhancer.targets import EnhancerTargets, gather_vectors, select_targets
from unigrf_dist.objective.negatives import Negatives


class Enhancer:
    """Lets ranking teach retrieval.

    Args:
        config: how many candidates and targets, and the threshold of soft positives.
        retrieval: says how vectors are compared; scores must be those of the retrieval loss.
        num_items: size of the catalogue.
    """

    def __init__(self, config: EnhancerConfig, retrieval: RetrievalConfig, *, num_items: int) -> None:
        self.config, self.normalize, self.num_items = config, retrieval.normalize, num_items

    def targets(
        self,
        queries: Tensor,
        candidate_states: Tensor,
        candidates: Candidates,
        batch: JaggedBatch,
        *,
        head_weight: Tensor,
        head_bias: Tensor,
    ) -> EnhancerTargets:
        """Compare both tasks' views of the candidates; only the targets' vectors carry a gradient.

        Args:
            queries: ``[B, D]`` hidden states after the users' last events.
            candidate_states: ``[B, C, D]`` hidden states of the candidate tokens.
            candidates: what stands at those tokens.
            batch: the users.
            head_weight, head_bias: ``[D]`` and ``[]``, ranking head of the first task, the one that teaches.
        """
        vectors = candidates.vectors.to(queries.dtype)
        with torch.no_grad():
            # Without a history there is nothing that either task could have read.
            ids = torch.where(batch.lengths[:, None] > 0, candidates.ids, NO_ITEM)
            scores = torch.einsum("bd,bcd->bc", self._comparable(queries), self._comparable(vectors)).float()
            probabilities = (candidate_states @ head_weight + head_bias).float().sigmoid()
            selected = select_targets(ids, scores, probabilities, self.config)
        return EnhancerTargets(
            hard_negative_ids=selected.hard_negative_ids,
            hard_negative_vectors=gather_vectors(vectors, selected.hard_negative_indices),
            soft_positive_ids=selected.soft_positive_ids,
            soft_positive_vectors=gather_vectors(vectors, selected.soft_positive_indices),
            above_threshold_ids=selected.above_threshold_ids,
        )

    @torch.no_grad()
    def next_candidates(
        self,
        queries: Tensor,
        batch: JaggedBatch,
        negatives: Negatives,
        negative_vectors: Tensor,
        candidates: Candidates | None,
    ) -> Tensor:
        """``[B, C]`` int64, the candidates of the next round, best first; ``NO_ITEM`` where there are fewer.

        Args:
            queries: ``[B, D]`` hidden states after the users' last events.
            batch: the users and what they have seen.
            negatives: negatives of the step.
            negative_vectors: ``[K, D]`` their vectors.
            candidates: candidates of this round, if any.
        """
        if not batch.num_events:
            return batch.user_ids.new_full((batch.num_users, self.config.candidates), NO_ITEM)
        if candidates is not None:
            candidates = Candidates(candidates.ids, self._comparable(candidates.vectors.to(queries.dtype)))
        selected = select_candidates(
            # A query's length changes no order among its items.
            queries,
            self._comparable(negative_vectors.to(queries.dtype)),
            negatives,
            batch,
            candidates,
            num_candidates=self.config.candidates,
            num_items=self.num_items,
        )
        return torch.where(batch.lengths[:, None] > 0, selected, NO_ITEM)

    def _comparable(self, vectors: Tensor) -> Tensor:
        """Vectors as the retrieval loss compares them."""
        return torch.nn.functional.normalize(vectors, dim=-1, eps=1e-6) if self.normalize else vectors
