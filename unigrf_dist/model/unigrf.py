"""UniGRF: one transducer, two tasks (Zhang et al., arXiv 2504.16454, section 3).

Shapes: ``E`` events, ``T = 2 E`` tokens, ``B`` users, ``K`` negatives, ``A`` ranking tasks, ``D`` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unigrf_dist.config.schema import Config
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.backbone import build_backbone
from unigrf_dist.model.tokens import has_next_event, interleave, token_layout
from unigrf_dist.objective.negatives import Negatives
from unigrf_dist.phases import Phases
from unigrf_kernels.dropout import seeded_dropout
from unigrf_kernels.joint_loss import joint_loss

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
        phases: names the loss inside the forward.
    """

    labels: Tensor
    task_weights: Tensor

    def __init__(self, config: Config, labels: Sequence[Sequence[float]], phases: Phases) -> None:
        super().__init__()
        self.objective, self.kernel, self.phases = config.objective, config.kernel, phases
        model = config.model
        max_events = config.data.max_events + 1  # the history and the event to predict
        self.max_tokens = 2 * max_events
        self.dropout, self.query_time_visible = model.dropout, model.query_time_visible
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
        seed: int | None = None,
    ) -> tuple[Tensor, ...]:
        """Both task losses of a batch or, without negatives, its scores.

        One forward with the loss inside, so that ZeRO-3 gathers what the loss needs.

        Args:
            items: ``[E, D]`` vectors of the batch's items.
            batch: the events.
            negatives: ``K`` items that retrieval tells the next one from.
            negative_vectors: ``[K, D]`` their vectors.
            seed: of this step's dropout masks; None switches dropout off.

        Returns:
            With negatives: the scalars retrieval_sum and ranking_sum (differentiable, fp32), and ``[4]``
            retrieval_count, ranking_count and the squared norms of both sums' gradients with respect to the
            hidden states. Without: the fields of ``SequenceScores``.
        """
        hidden = self.encode(items, batch, seed)
        if negatives is None:
            return self._scores(hidden, batch)
        assert negative_vectors is not None
        with self.phases("loss"):
            return self._losses(hidden, items, batch, negatives, negative_vectors)

    def encode(self, items: Tensor, batch: JaggedBatch, seed: int | None) -> Tensor:
        """``[E, D]`` item vectors → ``[T, D]`` hidden states of the interleaved tokens."""
        layout = token_layout(batch, max_length=self.max_tokens, query_time_visible=self.query_time_visible)
        positions = self.positions(layout.positions)
        item_tokens = items.to(positions.dtype) * self.item_scale + positions
        tokens = interleave(item_tokens, self.behaviours(batch.behaviours) + positions)
        if seed is not None:
            tokens = seeded_dropout(tokens, dropout=self.dropout, seed=seed, implementation=self.kernel)
        return self.backbone(tokens, layout, seed)

    def _losses(
        self,
        hidden: Tensor,
        items: Tensor,
        batch: JaggedBatch,
        negatives: Negatives,
        negative_vectors: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        retrieval = self.objective.retrieval
        events = torch.arange(batch.num_events, device=batch.device)
        # Every event has a retrieval entry; the last one of a user, which no event follows, weighs nothing.
        # A selection of rows would cost a host synchronisation per step.
        follower = (events + 1).clamp(max=max(batch.num_events - 1, 0))
        next_items = batch.item_ids[follower]
        loss = joint_loss(
            hidden,
            retrieval_rows=2 * events + 1,
            positives=items[follower].to(hidden.dtype),
            positive_ids=next_items,
            retrieval_weights=has_next_event(batch).float(),
            negatives=negative_vectors.to(hidden.dtype),
            negative_ids=negatives.ids,
            positive_log_q=None if negatives.item_log_q is None else negatives.item_log_q(next_items),
            negative_log_q=None if negatives.item_log_q is None else negatives.item_log_q(negatives.ids),
            temperature=retrieval.temperature,
            normalize=retrieval.normalize,
            ranking_rows=2 * events,
            head_weight=self.head_weight,
            head_bias=self.head_bias,
            labels=self.labels[batch.behaviours].float(),
            task_weights=self.task_weights,
            implementation=self.kernel,
        )
        counts_and_norms = [
            loss.retrieval_count,
            loss.ranking_count,
            loss.retrieval_sq_norm,
            loss.ranking_sq_norm,
        ]
        return loss.retrieval_sum, loss.ranking_sum, torch.stack(counts_and_norms)

    def _scores(self, hidden: Tensor, batch: JaggedBatch) -> tuple[Tensor, Tensor, Tensor]:
        valid = batch.lengths >= 2
        last = batch.offsets[1:][valid] - 1
        width, tasks = hidden.shape[1], self.head_weight.shape[0]
        queries = torch.zeros(batch.num_users, width, device=hidden.device)
        logits = torch.zeros(batch.num_users, tasks, device=hidden.device)
        queries[valid] = hidden[2 * last - 1].float()
        logits[valid] = torch.addmm(self.head_bias, hidden[2 * last], self.head_weight.T).float()
        return queries, logits, valid
