"""The two passes of a request as graphs of plain operations, with the item vectors inside.

Shapes: ``B`` users, ``N`` events of each, padded at the end; ``C`` candidates; ``F`` user features; ``L`` blocks,
``G`` key heads, ``K`` head width, ``D`` width, ``A`` ranking tasks, ``V`` items.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.kept_keys import KeysValues
from unigrf_dist.model.padded_tokens import candidate_tokens, history_tokens
from unigrf_dist.model.side_features import table_name
from unigrf_dist.model.tokens import pack
from unigrf_dist.model.unigrf import UniGRF
from unigrf_dist.objective.enhancer.candidates import Candidates
from unigrf_dist.serve.loaded import LoadedRun


class _Graph(nn.Module):
    """The model with what its tokens are made of."""

    items: Tensor

    def __init__(self, run: LoadedRun) -> None:
        super().__init__()
        self.model = _plain(run.model)
        self.register_buffer("items", run.tables.of_all_items())
        users = [run.tables.weights[table_name("user", name)] for name in run.config.model.user_features]
        self.user_tables = nn.ParameterList(nn.Parameter(table, requires_grad=False) for table in users)

    def token_items(self, ids: Tensor, user_features: Tensor | None) -> Tensor:
        """``[B, M, D]`` vectors of items ``[B, M]``, with what side features add."""
        vectors = self.items[ids]
        if user_features is None:
            return vectors
        of_users = [table[user_features[:, n]] for n, table in enumerate(self.user_tables)]
        return vectors + torch.stack(of_users).sum(0)[:, None]


class HistoryGraph(_Graph):
    """Reads histories: what scores the catalogue, and what is kept for ranking."""

    def forward(
        self,
        item_ids: Tensor,
        behaviours: Tensor,
        times: Tensor,
        lengths: Tensor,
        asked: Tensor,
        user_features: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, D]`` queries, and ``[L, B, N, 2, G, K]`` keys and values.

        Args:
            item_ids: ``[B, N]`` int64, rows of items, oldest event first; 0 in the padding.
            behaviours: ``[B, N]`` int64, behaviour codes; 0 in the padding.
            times: ``[B, N]`` int64, seconds; any number in the padding.
            lengths: ``[B]`` int64, events of each user, 1 or more.
            asked: ``[B]`` int64, seconds: the moments of the requests.
            user_features: ``[B, F]`` int64 codes; where the model has user features.
        """
        num_users, num_events = item_ids.shape
        index = torch.arange(num_events, device=item_ids.device)
        none = lengths[:0]
        events = JaggedBatch(item_ids.flatten(), behaviours.flatten(), times.flatten(), none, none)
        vectors = self.token_items(item_ids, user_features).flatten(0, 1)
        positions = self.model.positions(index).expand(num_users, -1, -1).flatten(0, 1)
        tokens = pack(*self.model.event_tokens(vectors, events, positions), None, None)
        hidden, keys = self.model.backbone.extend(
            tokens, history_tokens(_twice(times), self._query_times(times, lengths, asked, index)), None
        )
        last = (2 * lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[1])
        queries = hidden.reshape(num_users, 2 * num_events, hidden.shape[1]).gather(1, last)[:, 0]
        return (
            queries,
            _by_event([each.k for each in keys], num_events),
            _by_event([each.v for each in keys], num_events),
        )

    def _query_times(self, times: Tensor, lengths: Tensor, asked: Tensor, index: Tensor) -> Tensor:
        """``[B, 2 N]``: items ask for their own moment, behaviours for the next event's where visible."""
        if not self.model.query_time_visible:
            return _twice(times)
        following = torch.cat([times[:, 1:], asked[:, None]], dim=1)
        following = torch.where(index == lengths[:, None] - 1, asked[:, None], following)
        return torch.stack([times, following], dim=2).flatten(1)


class RankGraph(_Graph):
    """Scores candidates behind kept histories."""

    def forward(
        self,
        candidates: Tensor,
        keys: Tensor,
        values: Tensor,
        times: Tensor,
        lengths: Tensor,
        asked: Tensor,
        user_features: Tensor | None = None,
    ) -> Tensor:
        """``[B, C, A]`` logits of the ranking tasks.

        Args:
            candidates: ``[B, C]`` int64, rows of items.
            keys, values: ``[L, B, N, 2, G, K]``, what the history graph gave.
            times, lengths, asked, user_features: what the history graph was given.
        """
        num_candidates = candidates.shape[1]
        vectors = self.token_items(candidates, user_features)
        tokens = self.model.candidate_tokens(Candidates(candidates, vectors), self.model.positions(lengths))
        layout = candidate_tokens(_twice(times), 2 * lengths, asked, num_candidates)
        kept = [KeysValues(k, v) for k, v in zip(keys.flatten(2, 3), values.flatten(2, 3), strict=True)]
        hidden, _ = self.model.backbone.extend(tokens, layout, kept)
        logits = torch.addmm(self.model.head_bias, hidden, self.model.head_weight.T)
        return logits[:, : self.model.num_tasks].reshape(*candidates.shape, self.model.num_tasks)


def _by_event(tokens: list[Tensor], num_events: int) -> Tensor:
    """``[L, B, N, 2, G, K]`` from ``[B, 2 N, G, K]`` of each block: an exported size can't be twice another."""
    stacked = torch.stack(tokens)
    return stacked.reshape(*stacked.shape[:2], num_events, 2, *stacked.shape[3:])


def _twice(times: Tensor) -> Tensor:
    """``[B, 2 N]`` times of the tokens of events at ``[B, N]``."""
    return torch.stack([times, times], dim=2).flatten(1)


def _plain(model: UniGRF) -> UniGRF:
    """A copy that runs the operators' definitions, which a graph can hold."""
    plain = copy.deepcopy(model).requires_grad_(False).eval()
    for module in plain.modules():
        if hasattr(module, "kernel"):
            setattr(module, "kernel", "reference")  # noqa: B010 - a module's attributes have no common type
    return plain
