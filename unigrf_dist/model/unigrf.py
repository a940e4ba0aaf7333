"""UniGRF: one transducer, two tasks (Zhang et al., arXiv 2504.16454, section 3).

Shapes: ``E`` events, ``B`` users, ``C`` candidates of each, ``T = 2 E + B C`` tokens, ``K`` negatives, ``A``
ranking tasks, ``D`` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unigrf_dist.config.schema import Config
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.backbone import build_backbone
from unigrf_dist.model.tokens import TokenLayout, has_next_event, pack, token_layout
from unigrf_dist.objective.enhancer.candidates import Candidates
from unigrf_dist.objective.enhancer.targets import EnhancerTargets, enhancer_targets, next_candidates
from unigrf_dist.objective.negative_mask import above_threshold_masks, seen_negative_masks
from unigrf_dist.objective.negatives import Negatives
from unigrf_dist.objective.pairs import QueryPositivePairs, next_item_pairs
from unigrf_dist.phases import Phases
from unigrf_kernels.ops.dropout import seeded_dropout
from unigrf_kernels.ops.joint_loss import joint_loss

_INIT_STD = 0.02


@dataclass(frozen=True)
class SequenceScores:
    """What evaluation asks of a batch whose sequences end with the event to predict.

    Attributes:
        queries: ``[B, D]`` fp32, hidden state before the last event: scores the catalogue.
        ranking_logits: ``[B, A]`` fp32, at the last event's item: its behaviour under each task.
        valid: ``[B]`` bool, whether the user has an event before the last one.
    """

    queries: Tensor
    ranking_logits: Tensor
    valid: Tensor


class UniGRF(nn.Module):
    """Dense part of the model: everything but the item table.

    Args:
        config: the run's configuration.
        labels: ``[num_behaviours][A]`` label of each behaviour code under each ranking task, NaN if none.
        num_items: size of the catalogue.
        phases: names the loss inside the forward.
    """

    labels: Tensor
    task_weights: Tensor

    def __init__(
        self, config: Config, labels: Sequence[Sequence[float]], *, num_items: int, phases: Phases
    ) -> None:
        super().__init__()
        self.num_items = num_items
        self.objective, self.kernel, self.phases = config.objective, config.kernel, phases
        model = config.model
        max_events = config.data.max_events + 1  # the history and the event to predict
        self.max_tokens = 2 * max_events
        self.dropout, self.query_time_visible = model.dropout, model.query_time_visible
        self.behaviours_carry_items = model.behaviours_carry_items
        self.item_scale = model.width**0.5
        self.behaviours = nn.Embedding(len(labels), model.width)
        self.positions = nn.Embedding(max_events, model.width)
        for table in (self.behaviours, self.positions):
            nn.init.normal_(table.weight, std=_INIT_STD)
        self.backbone = build_backbone(model, max_tokens=self.max_tokens, kernel=config.kernel)
        self.head_weight = nn.Parameter(torch.randn(len(labels[0]), model.width) * _INIT_STD)
        self.head_bias = nn.Parameter(torch.zeros(len(labels[0])))
        # Labels and weights are data, not state: they come from the configuration, never from a checkpoint.
        self.register_buffer("labels", torch.tensor(labels), persistent=False)
        weights = torch.tensor([task.weight for task in config.objective.ranking])
        self.register_buffer("task_weights", weights, persistent=False)

    def forward(
        self,
        items: Tensor,
        batch: JaggedBatch,
        negatives: Negatives | None = None,
        negative_vectors: Tensor | None = None,
        candidates: Candidates | None = None,
        side: Tensor | None = None,
        seed: int | None = None,
    ) -> tuple[Tensor | None, ...]:
        """Both task losses of a batch or, without negatives, its scores.

        One forward with the loss inside, so that ZeRO-3 gathers what the loss needs.

        Args:
            items: ``[E, D]`` vectors of the batch's items.
            batch: the events.
            negatives: ``K`` items that retrieval tells the next one from.
            negative_vectors: ``[K, D]`` their vectors.
            proposals: ``C`` items for each user that ride along as candidates.
            side: ``[E, D]``, what side features add to the items in the tokens, and only there.
            seed: of this step's dropout masks; None switches dropout off.

        Returns:
            With negatives: the scalars retrieval_sum and ranking_sum (differentiable, fp32), ``[4]`` the squared
            norms of both sums' gradients with respect to the hidden states and how many hard negatives and
            favourites the enhancer gave, and ``[B, C]`` the users' next proposals, None without an enhancer.
            Without negatives: the fields of ``SequenceScores``.
        """
        num_candidates = 0 if candidates is None else candidates.ids.shape[1]
        layout = self._layout(batch, num_candidates)
        hidden = self.encode(items if side is None else items + side, batch, layout, candidates, seed)
        if negatives is None:
            return self._scores(hidden, batch)
        assert negative_vectors is not None
        targets = None if candidates is None else self._enhancer_targets(hidden, layout, batch, candidates)
        with self.phases("loss"):
            losses = self._losses(hidden, layout, items, batch, negatives, negative_vectors, targets)
        if self.objective.enhancer is None:
            return *losses, None
        with self.phases("enhancer"):
            return *losses, next_candidates(
                hidden,
                layout,
                batch,
                negatives,
                negative_vectors,
                candidates,
                config=self.objective.enhancer,
                retrieval=self.objective.retrieval,
                num_items=self.num_items,
            )

    def encode(
        self,
        items: Tensor,
        batch: JaggedBatch,
        layout: TokenLayout,
        candidates: Candidates | None,
        seed: int | None,
    ) -> Tensor:
        """``[E, D]`` item vectors → ``[T, D]`` hidden states of the tokens."""
        asked = torch.cat([layout.positions, batch.lengths.clamp_max(self.positions.num_embeddings - 1)])
        # One lookup: ZeRO's bookkeeping is wrong for a module that runs twice in a step.
        positions, behind = self.positions(asked).split([batch.num_events, batch.num_users])
        item_tokens = items.to(positions.dtype) * self.item_scale + positions
        behaviour_tokens = self.behaviours(batch.behaviours) + (
            item_tokens if self.behaviours_carry_items else positions
        )
        candidate_tokens = None if candidates is None else self._candidate_tokens(candidates, behind)
        tokens = pack(item_tokens, behaviour_tokens, candidate_tokens, layout.order)
        if seed is not None:
            tokens = seeded_dropout(tokens, dropout=self.dropout, seed=seed, implementation=self.kernel)
        return self.backbone(tokens, layout, seed)

    def count_positions(self, batch: JaggedBatch) -> Tensor:
        """``[2]`` fp32, how many predictions of each task the loss of ``batch`` is the sum of."""
        labelled = ~self.labels[batch.behaviours].isnan()
        return torch.stack([has_next_event(batch).sum(), labelled.sum()]).float()

    def last_shared_parameters(self) -> list[nn.Parameter]:
        """Those of the last block, which both tasks read."""
        return list(self.backbone.blocks[-1].parameters())

    def _layout(self, batch: JaggedBatch, num_candidates: int) -> TokenLayout:
        return token_layout(
            batch,
            max_length=self.max_tokens,
            query_time_visible=self.query_time_visible,
            num_candidates=num_candidates,
        )

    def _candidate_tokens(self, candidates: Candidates, positions: Tensor) -> Tensor:
        """``[B C, D]``: candidates stand where the user's next item would, and are asked, not learnt from."""
        vectors = candidates.vectors if candidates.side is None else candidates.vectors + candidates.side
        vectors = vectors.to(positions.dtype) * self.item_scale
        return (vectors + positions[:, None]).detach().flatten(0, 1)

    def _enhancer_targets(
        self, hidden: Tensor, layout: TokenLayout, batch: JaggedBatch, candidates: Candidates
    ) -> EnhancerTargets:
        assert self.objective.enhancer is not None
        with self.phases("enhancer"):
            return enhancer_targets(
                hidden,
                layout,
                batch,
                candidates,
                head_weight=self.head_weight[0],
                head_bias=self.head_bias[0],
                config=self.objective.enhancer,
                retrieval=self.objective.retrieval,
            )

    def _losses(
        self,
        hidden: Tensor,
        layout: TokenLayout,
        items: Tensor,
        batch: JaggedBatch,
        negatives: Negatives,
        negative_vectors: Tensor,
        targets: EnhancerTargets | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        retrieval = self.objective.retrieval
        entries = next_item_pairs(hidden, layout, items, batch)
        observed: dict[str, Tensor] = {}
        if targets is not None:
            assert self.objective.enhancer is not None
            entries = entries.with_soft_positives(targets, self.objective.enhancer.soft_weight)
            observed = {
                "retrieval_users": entries.users,
                "user_negatives": targets.hard_vectors,
                "user_negative_ids": targets.hard_ids,
            }
        mask, mask_rows = self._negative_mask(entries, batch, negatives, targets)
        log_q = negatives.item_log_q
        loss = joint_loss(
            hidden,
            retrieval_rows=entries.rows,
            positives=entries.positives,
            positive_ids=entries.ids,
            retrieval_weights=entries.weights,
            negatives=negative_vectors.to(hidden.dtype),
            negative_ids=negatives.ids,
            positive_log_q=None if log_q is None else log_q(entries.ids),
            negative_log_q=None if log_q is None else log_q(negatives.ids),
            negative_mask=mask,
            negative_mask_rows=mask_rows,
            temperature=retrieval.temperature,
            normalize=retrieval.normalize,
            ranking_rows=layout.item_rows,
            head_weight=self.head_weight,
            head_bias=self.head_bias,
            labels=self.labels[batch.behaviours].float(),
            task_weights=self.task_weights,
            implementation=self.kernel,
            **observed,
        )
        given = hidden.new_zeros(2, dtype=torch.float32) if targets is None else targets.counts()
        sq_norms = torch.stack([loss.retrieval_sq_norm, loss.ranking_sq_norm])
        return loss.retrieval_sum, loss.ranking_sum, torch.cat([sq_norms, given])

    def _negative_mask(
        self,
        entries: QueryPositivePairs,
        batch: JaggedBatch,
        negatives: Negatives,
        targets: EnhancerTargets | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """What the entries must not be told from: bit masks, and which of them holds for each entry."""
        liked = None
        if targets is not None:
            liked = above_threshold_masks(targets.above_threshold_ids, negatives, num_items=self.num_items)
        if not self.objective.retrieval.mask_seen_negatives or not batch.num_events:
            return liked, None if liked is None else entries.users
        met = seen_negative_masks(batch, negatives, num_items=self.num_items)
        if liked is not None:
            met |= liked[entries.users[: batch.num_events]]
        return met, entries.events

    def _scores(self, hidden: Tensor, batch: JaggedBatch) -> tuple[Tensor, Tensor, Tensor]:
        valid = batch.lengths >= 2
        last = batch.offsets[1:][valid] - 1
        width, tasks = hidden.shape[1], self.head_weight.shape[0]
        queries = torch.zeros(batch.num_users, width, device=hidden.device)
        logits = torch.zeros(batch.num_users, tasks, device=hidden.device)
        queries[valid] = hidden[2 * last - 1].float()
        logits[valid] = torch.addmm(self.head_bias, hidden[2 * last], self.head_weight.T).float()
        return queries, logits, valid
