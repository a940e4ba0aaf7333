"""The model as a request runs it: once over the histories, then over candidates behind the kept keys and values.

Shapes: ``B`` users, ``E`` events, ``C`` candidates per user, ``A`` ranking tasks, ``D`` width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.model.kept_keys import KeysValues, new_tokens
from unigrf_dist.model.tokens import pack
from unigrf_dist.model.unigrf import UniGRF
from unigrf_dist.objective.enhancer.candidates import Candidates


@dataclass(frozen=True)
class KeptHistory:
    """What is kept of histories after one pass over them.

    Attributes:
        queries: ``[B, D]`` fp32, hidden state after each user's last event: scores the catalogue; zero for users
            without events.
        lengths: ``[B]`` int64, events of each user.
        offsets: ``[B + 1]`` int64, bounds of each user's tokens.
        times: ``[2 E]`` int64, seconds: times of the tokens' events.
        keys: keys and values of the tokens, by block.
    """

    queries: Tensor
    lengths: Tensor
    offsets: Tensor
    times: Tensor
    keys: list[KeysValues]

    @property
    def num_bytes(self) -> int:
        """Memory of the tensors."""
        pairs = [tensor for block in self.keys for tensor in block]
        return sum(each.numel() * each.element_size() for each in (self.queries, self.times, *pairs))

    def lasting(self, model: UniGRF) -> KeptHistory:
        """What of it holds later: all tokens, but the last one where that knows the moment of the request.

        Args:
            model: the model that has read the history.
        """
        if not model.query_time_visible:
            return self
        ends = torch.zeros(self.times.numel(), dtype=torch.bool)
        ends[self.offsets[1:][self.offsets.diff() > 0] - 1] = True
        stay = (~ends).nonzero()[:, 0]
        before = torch.nn.functional.pad(ends.cumsum(0), (1, 0))
        keys = [KeysValues(*(part.index_select(0, stay) for part in block)) for block in self.keys]
        return KeptHistory(self.queries, self.lengths, self.offsets - before[self.offsets], self.times[stay], keys)


@torch.no_grad()
def read_histories(
    model: UniGRF, items: Tensor, batch: JaggedBatch, asked: Tensor, kept: KeptHistory | None = None
) -> KeptHistory:
    """One pass over histories, or over what has come to them since an earlier pass.

    Args:
        model: the dense model.
        items: ``[E, D]`` vectors of the events' items, with what side features add.
        batch: the events, at most as many of a user as the model has positions before the next item.
        asked: ``[B]`` int64, seconds: the moment for which each user's next item is asked.
        kept: what lasts of a pass over the first events of the same users; a position counts from the first
            event, so these must be the same events as those of ``batch``. None where all is to be read.
    """
    _refuse_too_long(model, batch)
    index = torch.arange(batch.num_events, device=batch.device) - batch.offsets[batch.user_indices]
    tokens = pack(*model.event_tokens(items, batch, model.positions(index)), None, None)
    times, query_times = batch.timestamps.repeat_interleave(2), _query_times(model, batch, asked)
    offsets = 2 * batch.offsets
    kept_offsets, kept_times = torch.zeros_like(offsets), times[:0]
    queries = torch.zeros(batch.num_users, tokens.shape[1], device=tokens.device)
    if kept is not None:
        kept_offsets, kept_times, queries = kept.offsets, kept.times, kept.queries.clone()
        tokens, times, query_times = _behind(kept, offsets, (tokens, times, query_times))
        offsets = offsets - kept_offsets
    layout = new_tokens(
        kept_offsets=kept_offsets, kept_times=kept_times, offsets=offsets, query_times=query_times, key_times=times
    )
    hidden, keys = model.backbone.extend(tokens, layout, None if kept is None else kept.keys)
    read = offsets.diff() > 0
    queries[read] = hidden[offsets[1:][read] - 1].float()
    assert layout.attention.key_times is not None
    return KeptHistory(queries, batch.lengths, 2 * batch.offsets, layout.attention.key_times, keys)


@torch.no_grad()
def rank_candidates(model: UniGRF, kept: KeptHistory, vectors: Tensor, asked: Tensor) -> Tensor:
    """``[B, C, A]`` fp32 logits of ranking tasks, as evaluation gives them for an event at the moment ``asked``.

    Candidates see the history and themselves, not each other. They carry the moment of the request: with that of
    the last event the time bias, and so the logits, would be others.

    Args:
        model: the dense model.
        kept: the users' histories.
        vectors: ``[B, C, D]`` vectors of the candidate items, with what side features add.
        asked: ``[B]`` int64, seconds: the moment at which the candidates would be shown.
    """
    num_users, num_candidates = vectors.shape[:2]
    ids = torch.zeros(num_users, num_candidates, dtype=torch.int64, device=vectors.device)
    tokens = model.candidate_tokens(Candidates(ids, vectors), model.positions(kept.lengths))
    times = asked.repeat_interleave(num_candidates)
    layout = new_tokens(
        kept_offsets=kept.offsets,
        kept_times=kept.times,
        offsets=num_candidates * torch.arange(num_users + 1, device=vectors.device),
        query_times=times,
        key_times=times,
        num_candidates=torch.full_like(kept.lengths, num_candidates),
    )
    hidden, _ = model.backbone.extend(tokens, layout, kept.keys)
    logits = torch.addmm(model.head_bias, hidden, model.head_weight.T).float()
    return logits[:, : model.num_tasks].unflatten(0, (num_users, num_candidates))


def _query_times(model: UniGRF, batch: JaggedBatch, asked: Tensor) -> Tensor:
    """``[2 E]`` int64: items ask for their own moment, behaviours for the next event's where visible."""
    times = batch.timestamps
    if not model.query_time_visible:
        return times.repeat_interleave(2)
    next_times = times.roll(-1)
    known = batch.lengths > 0
    next_times[batch.offsets[1:][known] - 1] = asked[known]
    return torch.stack([times, next_times], dim=1).flatten()


def _behind(kept: KeptHistory, offsets: Tensor, per_token: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What ``per_token``, ``[T, …]`` each, hold of the tokens behind the kept ones."""
    users = torch.repeat_interleave(offsets.diff())
    index = torch.arange(users.numel(), device=offsets.device) - offsets[users]
    new = (index >= kept.offsets.diff()[users]).nonzero()[:, 0]
    return tuple(each.index_select(0, new) for each in per_token)


def _refuse_too_long(model: UniGRF, batch: JaggedBatch) -> None:
    room = model.positions.num_embeddings - 1
    if batch.num_users and int(batch.lengths.max()) > room:
        raise ValueError(f"a history has {int(batch.lengths.max())} events, the model takes {room}: cut it first")
