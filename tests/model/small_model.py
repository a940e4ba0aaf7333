"""A model whose every parameter matters, and a batch in which everything occurs that the method treats apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tests.model.reference import Reference
from tests.model.reference_transducer import Vectors
from tests.train.small_run import small_config
from unigrf_dist.config.schema import Config
from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.unigrf import StepSums, UniGRF
from unigrf_dist.objective.enhancer.candidates import Candidates
from unigrf_dist.objective.negatives import Negatives, NegativeSource
from unigrf_dist.phases import Phases

NUM_ITEMS = 37  # more than a word of the negative mask
WIDTH = 6
NONE = float("nan")
RULES = [
    {"rule": "rating >= 4", "weight": 0.5},
    {"rule": "click == 1", "weight": 2.0},
    {"rule": "like == 1", "weight": 1.25},
]
# Of five behaviours under three tasks; no two tasks agree, and one behaviour has no label at all.
LABELS = [[1.0, 0.0, NONE], [0.0, NONE, 1.0], [NONE, 1.0, 0.0], [1.0, 1.0, 0.0], [NONE, NONE, NONE]]
POPULARITY = [(7 * item + 10) % NUM_ITEMS for item in range(NUM_ITEMS)]
"""No two alike; 0 for an item that no user has."""
ENHANCER = {"candidates": 5, "hard_negatives": 2, "soft_positives": 1, "threshold": 0.5, "soft_weight": 0.375}
CANDIDATES = torch.tensor(
    [[1, 4, 6, 7, 9], [2, -1, 35, 11, 14], [1, 2, 3, 4, 5], [0, 5, 33, 8, -1], [16, 15, 12, 2, 1]]
)
"""``[B, C]``, unseen by their users. One user has no events: its candidates count for nothing."""


def model_config(**changes: Any) -> Config:
    """Two heads, two blocks, three tasks, an enhancer, no dropout; ``changes`` as in ``small_config``."""
    return small_config(
        **{
            "data__max_events": 7,
            "model__width": WIDTH,
            "model__head_width": 4,
            "objective__ranking": RULES,
            "objective__enhancer": ENHANCER,
            "objective__retrieval__temperature": 0.25,
            "objective__retrieval__num_negatives": 45,
            "kernel": "torch",
            **changes,
        }
    )


def jagged_batch() -> JaggedBatch:
    """Five users of 5, 1, 0, 7 and 2 events; items come again within users, two users have a prior history."""
    items = [[3, 5, 3, 8, 5], [0], [], [1, 2, 1, 34, 4, 2, 7], [6, 3]]
    behaviours = [[0, 1, 2, 3, 4], [1], [], [2, 0, 4, 1, 3, 3, 0], [2, 1]]
    times = [[10, 10, 11, 400, 90_000], [77], [], [0, 3, 9, 50, 51, 7_000, 7_005], [5, 2_000_000]]
    prior = [[2, 10, 2], [], [], [11, 36], []]

    def packed(parts: list[list[int]]) -> Tensor:
        return torch.tensor([value for part in parts for value in part])

    def offsets(parts: list[list[int]]) -> Tensor:
        return torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)

    return JaggedBatch(
        packed(items),
        packed(behaviours),
        packed(times),
        offsets(items),
        torch.arange(len(items)),
        prior_item_ids=packed(prior),
        prior_offsets=offsets(prior),
    )


@dataclass
class Small:
    """A model, a batch, and the vectors that the tables would have given.

    Attributes:
        table: ``[num_items, D]`` item vectors, from which those of the batch, negatives and candidates come.
        vectors: of the batch; leaves of autograd.
        candidate_ids: ``[B, C]``; None without an enhancer.
    """

    config: Config
    model: UniGRF
    batch: JaggedBatch
    negatives: Negatives
    vectors: Vectors
    candidate_ids: Tensor | None

    def forward(self, seed: int | None = None) -> StepSums:
        v, candidates = self.vectors, None
        if self.candidate_ids is not None:
            assert v.candidates is not None
            candidates = Candidates(self.candidate_ids, v.candidates, v.candidate_side)
        return self.model(v.items, self.batch, v.side, self.negatives, v.negatives, candidates, seed)

    def hidden(self, seed: int | None = None) -> Tensor:
        """``[T, D]`` hidden states of a training forward."""
        states = []
        hook = self.model.backbone.register_forward_hook(lambda _, __, output: states.append(output.detach()))
        self.forward(seed)
        hook.remove()
        return states[0]

    def leaves(self) -> dict[str, Tensor]:
        """Everything that has a gradient: parameters and vectors, by name."""
        vectors = {name: value for name, value in vars(self.vectors).items() if value is not None}
        return {**dict(self.model.named_parameters()), **vectors}

    def reference(self) -> tuple[Reference, Vectors]:
        """The definition with this model's parameters, and the vectors, all in float64 and leaves of their own."""

        def own(value: Tensor) -> Tensor:
            return value.detach().double().requires_grad_()

        parameters = {name: own(value) for name, value in self.model.named_parameters()}
        vectors = {name: None if value is None else own(value) for name, value in vars(self.vectors).items()}
        return Reference(self.config, LABELS, POPULARITY, parameters), Vectors(**vectors)


def built_model(config: Config, *, dtype: torch.dtype = torch.float64) -> UniGRF:
    """A model far from its initial values, at which biases and heads would hardly count."""
    torch.manual_seed(3)
    model = UniGRF(config, LABELS, num_items=NUM_ITEMS, phases=Phases())
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(torch.randn_like(value) * 0.5 + (1.0 if "norm" in name and "bias" not in name else 0.0))
    return model.to(dtype)


def small_model(
    config: Config,
    *,
    dtype: torch.dtype = torch.float64,
    side: bool = False,
    batch: JaggedBatch | None = None,
    candidate_ids: Tensor | None = CANDIDATES,
) -> Small:
    """The parts of a forward under ``config``; ``side`` adds side features to tokens."""
    model, batch = built_model(config, dtype=dtype), batch or jagged_batch()
    source = NegativeSource(
        config.objective.retrieval, popularity=torch.tensor(POPULARITY), seed=1, device=torch.device("cpu")
    )
    negatives = source.draw(0, batch)
    generator = torch.Generator().manual_seed(4)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    table = drawn(NUM_ITEMS, WIDTH)
    if config.objective.enhancer is None:
        candidate_ids = None
    vectors = Vectors(items=table[batch.item_ids], negatives=table[negatives.ids])
    if side:
        vectors = replace(vectors, side=drawn(batch.num_events, WIDTH))
    if candidate_ids is not None:
        vectors = replace(vectors, candidates=table[candidate_ids.clamp_min(0)])
        if side:
            vectors = replace(vectors, candidate_side=drawn(*candidate_ids.shape, WIDTH))
    for value in vars(vectors).values():
        if value is not None:
            value.requires_grad_()
    return Small(config, model, batch, negatives, vectors, candidate_ids)
