"""UniGRF: one transducer, two tasks (Zhang et al., arXiv 2504.16454, section 3).

Shapes: ``E`` events, ``B`` users, ``C`` candidates per user, ``T = 2 E + B C`` tokens, ``K`` negatives, ``A``
ranking tasks, ``D`` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, overload

import torch
from torch import Tensor, nn

from unigrf_dist.config.schema import Config
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.backbone import build_backbone
from unigrf_dist.model.tokens import TokenLayout, pack, token_layout
from unigrf_dist.objective.enhancer.candidates import Candidates
from unigrf_dist.objective.enhancer.enhancer import Enhancer
from unigrf_dist.objective.enhancer.targets import EnhancerTargets
from unigrf_dist.objective.negative_mask import above_threshold_masks, seen_negative_masks
from unigrf_dist.objective.negatives import Negatives
from unigrf_dist.objective.pairs import QueryPositivePairs, event_labels, next_item_pairs, next_item_weights
from unigrf_dist.phases import Phases
from unigrf_kernels import joint_loss, seeded_dropout

_INIT_STD = 0.02


# Named tuples, because ZeRO-3 looks for tensors in tuples, lists and dictionaries alone.
class StepSums(NamedTuple):
    """What a training step needs of its batch: sums, whose divisors are counts over all ranks.

    Attributes:
        retrieval: ``[]`` fp32, sum of the weighted losses of all query–positive pairs; differentiable.
        ranking: ``[]`` fp32, sum of the losses of all labelled events; differentiable.
        sq_norms: ``[2]`` fp32, squared norms of both sums' gradients with respect to the hidden states.
        enhancer_counts: ``[2]`` fp32, hard negatives and soft positives that the enhancer gave.
        next_candidates: ``[B, C]`` int64, the users' candidates of the next round; None without an enhancer.
    """

    retrieval: Tensor
    ranking: Tensor
    sq_norms: Tensor
    enhancer_counts: Tensor
    next_candidates: Tensor | None


class SequenceScores(NamedTuple):
    """What evaluation needs of sequences that end with the event to predict.

    Attributes:
        queries: ``[B, D]`` fp32, hidden state after the event before the last one: scores the catalogue.
        ranking_logits: ``[B, A]`` fp32, at the last event's item, whose behaviour is not attended to.
        valid: ``[B]`` bool, whether the user has an event before the last one.
    """

    queries: Tensor
    ranking_logits: Tensor
    valid: Tensor


class UniGRF(nn.Module):
    """Dense part of the model: everything but the item table.

    Args:
        config: configuration of the run.
        labels: ``[num_behaviours][A]`` label of each behaviour code under each ranking task, NaN if none.
            ``A`` may be 0.
        num_items: size of the catalogue.
        phases: names the parts of a forward.
        targets: ``[num_behaviours]`` whether an event of each behaviour is one that retrieval is to find; None if
            all are.
    """

    head_weight: Tensor
    head_bias: Tensor
    labels: Tensor
    targets: Tensor
    task_weights: Tensor

    def __init__(
        self,
        config: Config,
        labels: Sequence[Sequence[float]],
        *,
        num_items: int,
        phases: Phases,
        targets: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        self.num_items = num_items
        self.objective, self.kernel, self.phases = config.objective, config.kernel, phases
        model, enhancer = config.model, config.objective.enhancer
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
        self.num_tasks = len(labels[0])
        self._add_head(model.width)
        self.enhancer = (
            None if enhancer is None else Enhancer(enhancer, config.objective.retrieval, num_items=num_items)
        )
        # Labels and weights are data, not state: they come from the configuration, never from a checkpoint.
        label_rows = torch.tensor(labels) if self.num_tasks else torch.full((len(labels), 1), torch.nan)
        self.register_buffer("labels", label_rows, persistent=False)
        found = torch.ones(len(labels)) if targets is None else torch.tensor(targets, dtype=torch.float32)
        self.register_buffer("targets", found, persistent=False)
        weights = torch.tensor([task.weight for task in config.objective.ranking] or [1.0])
        self.register_buffer("task_weights", weights, persistent=False)

    def _add_head(self, width: int) -> None:
        """The ranking head. Without tasks it is a constant: the loss wants a head, and no event has a label."""
        if self.num_tasks:
            self.head_weight = nn.Parameter(torch.randn(self.num_tasks, width) * _INIT_STD)
            self.head_bias = nn.Parameter(torch.zeros(self.num_tasks))
        else:
            self.register_buffer("head_weight", torch.zeros(1, width), persistent=False)
            self.register_buffer("head_bias", torch.zeros(1), persistent=False)

    @overload
    def forward(
        self,
        items: Tensor,
        batch: JaggedBatch,
        side: Tensor | None,
        negatives: Negatives,
        negative_vectors: Tensor,
        candidates: Candidates | None = None,
        seed: int | None = None,
    ) -> StepSums: ...

    @overload
    def forward(self, items: Tensor, batch: JaggedBatch, side: Tensor | None = None) -> SequenceScores: ...

    def forward(
        self,
        items: Tensor,
        batch: JaggedBatch,
        side: Tensor | None = None,
        negatives: Negatives | None = None,
        negative_vectors: Tensor | None = None,
        candidates: Candidates | None = None,
        seed: int | None = None,
    ) -> StepSums | SequenceScores:
        """Both tasks' loss sums of a batch or, without negatives, the scores of its last events.

        One forward with the loss inside, so that ZeRO-3 gathers what the loss needs.

        Args:
            items: ``[E, D]`` vectors of the batch's items.
            batch: the events.
            side: ``[E, D]``, what side features add to the items in the tokens, and only there.
            negatives: the ``K`` items that the retrieval softmax runs over beside the positive.
            negative_vectors: ``[K, D]`` their vectors.
            candidates: ``C`` items of each user that ride along as candidate tokens.
            seed: seed of this step's dropout masks; None switches dropout off.
        """
        layout = token_layout(
            batch,
            max_length=self.max_tokens,
            query_time_visible=self.query_time_visible,
            num_candidates=0 if candidates is None else candidates.ids.shape[1],
        )
        hidden = self.encode(items if side is None else items + side, batch, layout, candidates, seed)
        if negatives is None:
            return self._scores(hidden, layout, batch)
        assert negative_vectors is not None
        targets = self._enhancer_targets(hidden, layout, batch, candidates)
        with self.phases("loss"):
            sums = self._sums(hidden, layout, items, batch, negatives, negative_vectors, targets)
        if self.enhancer is None:
            return sums
        with self.phases("enhancer"):
            queries = hidden[layout.last_rows]
            found = self.enhancer.next_candidates(queries, batch, negatives, negative_vectors, candidates)
        return sums._replace(next_candidates=found)

    def encode(
        self,
        items: Tensor,
        batch: JaggedBatch,
        layout: TokenLayout,
        candidates: Candidates | None,
        seed: int | None,
    ) -> Tensor:
        """``[E, D]`` item vectors → ``[T, D]`` hidden states of the tokens."""
        # One lookup for the events and for the position after each user's last: ZeRO's bookkeeping is wrong for a
        # module that runs twice in a step.
        indices = torch.cat([layout.positions, batch.lengths.clamp_max(self.positions.num_embeddings - 1)])
        positions, next_positions = self.positions(indices).split([batch.num_events, batch.num_users])
        event_tokens = self.event_tokens(items, batch, positions)
        candidate_tokens = None if candidates is None else self.candidate_tokens(candidates, next_positions)
        tokens = pack(*event_tokens, candidate_tokens, layout.order)  # [T, D]
        if seed is not None:
            tokens = seeded_dropout(tokens, dropout=self.dropout, seed=seed, implementation=self.kernel)
        return self.backbone(tokens, layout, seed)

    def event_tokens(self, items: Tensor, batch: JaggedBatch, positions: Tensor) -> tuple[Tensor, Tensor]:
        """``[E, D]`` tokens of the events' items and of their behaviours, from ``[E, D]`` items and positions."""
        item_tokens = items.to(positions.dtype) * self.item_scale + positions
        carried = item_tokens if self.behaviours_carry_items else positions
        return item_tokens, self.behaviours(batch.behaviours) + carried

    def candidate_tokens(self, candidates: Candidates, positions: Tensor) -> Tensor:
        """``[B C, D]``: candidates stand at the position of the user's next item, and get no gradient."""
        vectors = candidates.vectors if candidates.side is None else candidates.vectors + candidates.side
        vectors = vectors.to(positions.dtype) * self.item_scale
        return (vectors + positions[:, None]).detach().flatten(0, 1)

    def count_positions(self, batch: JaggedBatch) -> Tensor:
        """``[2]`` fp32, next-item pairs (soft positives not counted) and labels behind the sums of ``batch``."""
        labelled = ~event_labels(batch, self.labels).isnan()
        return torch.stack([next_item_weights(batch, self.targets).sum(), labelled.sum()]).float()

    def last_shared_parameters(self) -> list[nn.Parameter]:
        """Parameters of the last block, which both tasks read."""
        return list(self.backbone.blocks[-1].parameters())

    def _enhancer_targets(
        self, hidden: Tensor, layout: TokenLayout, batch: JaggedBatch, candidates: Candidates | None
    ) -> EnhancerTargets | None:
        if candidates is None:
            return None
        assert self.enhancer is not None
        with self.phases("enhancer"), torch.no_grad():
            states = hidden[layout.last_rows], hidden[layout.candidate_rows]
        with self.phases("enhancer"):
            return self.enhancer.targets(
                *states, candidates, batch, head_weight=self.head_weight[0], head_bias=self.head_bias[0]
            )

    def _sums(
        self,
        hidden: Tensor,
        layout: TokenLayout,
        items: Tensor,
        batch: JaggedBatch,
        negatives: Negatives,
        negative_vectors: Tensor,
        targets: EnhancerTargets | None,
    ) -> StepSums:
        retrieval = self.objective.retrieval
        pairs = next_item_pairs(layout.behaviour_rows, items.to(hidden.dtype), batch, self.targets)
        per_user: dict[str, Tensor] = {}
        if targets is not None:
            assert self.objective.enhancer is not None
            pairs = pairs.with_soft_positives(
                targets,
                query_rows=layout.last_rows,
                events=(batch.offsets[1:] - 1).clamp_min(0),
                weight=self.objective.enhancer.soft_weight,
            )
            per_user = {
                "retrieval_users": pairs.users,
                "user_negatives": targets.hard_negative_vectors,
                "user_negative_ids": targets.hard_negative_ids,
            }
        mask, mask_rows = self._negative_mask(pairs, batch, negatives, targets)
        log_q = negatives.item_log_q
        loss = joint_loss(
            hidden,
            retrieval_rows=pairs.query_rows,
            positives=pairs.positive_vectors,
            positive_ids=pairs.positive_ids,
            retrieval_weights=pairs.weights,
            negatives=negative_vectors.to(hidden.dtype),
            negative_ids=negatives.ids,
            positive_log_q=None if log_q is None else log_q(pairs.positive_ids),
            negative_log_q=None if log_q is None else log_q(negatives.ids),
            negative_mask=mask,
            negative_mask_rows=mask_rows,
            temperature=retrieval.temperature,
            normalize=retrieval.normalize,
            ranking_rows=layout.item_rows,
            head_weight=self.head_weight,
            head_bias=self.head_bias,
            labels=event_labels(batch, self.labels),
            task_weights=self.task_weights,
            implementation=self.kernel,
            **per_user,
        )
        counts = hidden.new_zeros(2, dtype=torch.float32) if targets is None else targets.counts()
        sq_norms = torch.stack([loss.retrieval_sq_norm, loss.ranking_sq_norm])
        return StepSums(loss.retrieval_sum, loss.ranking_sum, sq_norms, counts, next_candidates=None)

    def _negative_mask(
        self,
        pairs: QueryPositivePairs,
        batch: JaggedBatch,
        negatives: Negatives,
        targets: EnhancerTargets | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """``[rows, W]`` bit masks of the negatives, and ``[P]`` the row that holds for each pair."""
        if not negatives.ids.numel():
            return None, None
        above = None  # [B, W]
        if targets is not None:
            above = above_threshold_masks(targets.above_threshold_ids, negatives, num_items=self.num_items)
        if self.objective.retrieval.mask_seen_negatives is False or not batch.num_events:
            return above, None if above is None else pairs.users
        masks = seen_negative_masks(batch, negatives, num_items=self.num_items)  # [E, W]
        if above is not None:
            masks |= above[batch.user_indices]
        return masks, pairs.events

    def _scores(self, hidden: Tensor, layout: TokenLayout, batch: JaggedBatch) -> SequenceScores:
        valid = batch.lengths >= 2
        last = batch.offsets[1:][valid] - 1  # the event to predict
        queries = torch.zeros(batch.num_users, hidden.shape[1], device=hidden.device)
        logits = torch.zeros(batch.num_users, self.head_weight.shape[0], device=hidden.device)
        queries[valid] = hidden[layout.behaviour_rows[last - 1]].float()
        ranked = hidden[layout.item_rows[last]]
        logits[valid] = torch.addmm(self.head_bias, ranked, self.head_weight.T).float()
        return SequenceScores(queries, logits[:, : self.num_tasks], valid)
