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


@torch.no_grad()
def read_histories(model: UniGRF, items: Tensor, batch: JaggedBatch, asked: Tensor) -> KeptHistory:
    """One pass over histories.

    Args:
        model: the dense model.
        items: ``[E, D]`` vectors of the events' items, with what side features add.
        batch: the events, at most as many of a user as the model has positions before the next item.
        asked: ``[B]`` int64, seconds: the moment for which each user's next item is asked.
    """
    _refuse_too_long(model, batch)
    index = torch.arange(batch.num_events, device=batch.device) - batch.offsets[batch.user_indices]
    tokens = pack(*model.event_tokens(items, batch, model.positions(index)), None, None)
    times = batch.timestamps.repeat_interleave(2)
    offsets = 2 * batch.offsets
    layout = new_tokens(
        kept_offsets=torch.zeros_like(offsets),
        kept_times=times[:0],
        offsets=offsets,
        query_times=_query_times(model, batch, asked),
        key_times=times,
    )
    hidden, keys = model.backbone.extend(tokens, layout, None)
    queries = torch.zeros(batch.num_users, hidden.shape[1], device=hidden.device)
    known = batch.lengths > 0
    queries[known] = hidden[offsets[1:][known] - 1].float()
    return KeptHistory(queries, batch.lengths, offsets, times, keys)


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


def _refuse_too_long(model: UniGRF, batch: JaggedBatch) -> None:
    room = model.positions.num_embeddings - 1
    if batch.num_users and int(batch.lengths.max()) > room:
        raise ValueError(f"a history has {int(batch.lengths.max())} events, the model takes {room}: cut it first")
