"""The transducer by definition: one user, one token, one head at a time, in float64.

Written from docs/method.md and the papers: interleaved tokens from UniGRF (arXiv 2504.16454, section 3.2), HSTU
from arXiv 2402.17152 (equations 1-3), Llama from arXiv 2302.13971. Parameters come as a dictionary by their name
in the model; nothing of the model's code is called.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unigrf_dist.config.schema import ModelConfig
from unigrf_dist.data.batch import JaggedBatch

NORM_EPSILON = 1e-6
ROTARY_BASE = 10000.0
SECONDS_PER_BUCKET = 0.301  # natural logarithm of the factor in time from one bucket to the next

Parameters = dict[str, Tensor]


@dataclass
class Vectors:
    """What the tables gave: ``[E, D]`` items and side features, ``[K, D]`` negatives, ``[B, C, D]`` candidates."""

    items: Tensor
    negatives: Tensor
    side: Tensor | None = None
    candidates: Tensor | None = None
    candidate_side: Tensor | None = None


@dataclass
class User:
    """One user's events and candidates, cut out of a batch; vectors are ``[D]``."""

    items: list[int]
    behaviours: list[int]
    times: list[int]
    item_vectors: list[Tensor]
    token_vectors: list[Tensor]
    num_context: int = 0
    prior_items: list[int] = field(default_factory=list)
    candidates: list[int] = field(default_factory=list)
    candidate_vectors: list[Tensor] = field(default_factory=list)
    candidate_token_vectors: list[Tensor] = field(default_factory=list)


@dataclass
class Token:
    """A ``[D]`` vector with its position, the second for which it asks and the second at which it happened."""

    vector: Tensor
    position: int
    asks_at: int
    happened_at: int
    is_candidate: bool = False


def users_of(batch: JaggedBatch, vectors: Vectors, candidate_ids: Tensor | None) -> list[User]:
    users = []
    bounds = batch.offsets.tolist()
    shown = vectors.items if vectors.side is None else vectors.items + vectors.side
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        user = User(
            batch.item_ids[start:stop].tolist(),
            batch.behaviours[start:stop].tolist(),
            batch.timestamps[start:stop].tolist(),
            list(vectors.items[start:stop]),
            list(shown[start:stop]),
        )
        if batch.context_lengths is not None:
            user.num_context = int(batch.context_lengths[number])
        if batch.prior_item_ids is not None and batch.prior_offsets is not None:
            first, last = batch.prior_offsets[number : number + 2].tolist()
            user.prior_items = batch.prior_item_ids[first:last].tolist()
        if candidate_ids is not None and vectors.candidates is not None:
            user.candidates = candidate_ids[number].tolist()
            user.candidate_vectors = list(vectors.candidates[number])
            side = vectors.candidate_side
            rides = vectors.candidates[number] if side is None else vectors.candidates[number] + side[number]
            user.candidate_token_vectors = list(rides.detach())
        users.append(user)
    return users


def tokens_of(user: User, parameters: Parameters, config: ModelConfig) -> list[Token]:
    """``i_1, b_1, i_2, b_2, …``, then the candidates at the position of the next item."""
    tokens, scale = [], math.sqrt(config.width)
    positions, behaviours = parameters["positions.weight"], parameters["behaviours.weight"]
    for event, time in enumerate(user.times):
        item = user.token_vectors[event] * scale + positions[event]
        behaviour = behaviours[user.behaviours[event]]
        behaviour = behaviour + (item if config.behaviours_carry_items else positions[event])
        is_last = event == len(user.times) - 1
        asks_at = user.times[event + 1] if config.query_time_visible and not is_last else time
        tokens.append(Token(item, 2 * event, time, time))
        tokens.append(Token(behaviour, 2 * event + 1, asks_at, time))
    length = len(user.times)
    now = user.times[-1] if user.times else 0
    for vector in user.candidate_token_vectors:
        # A candidate teaches nothing to the transducer: what it is made of counts as a constant.
        rides = (vector * scale + positions[length]).detach()
        tokens.append(Token(rides, 2 * length, now, now, is_candidate=True))
    return tokens


def hidden_states(user: User, parameters: Parameters, config: ModelConfig, max_tokens: int) -> list[Tensor]:
    """``[D]`` hidden state of each of a user's tokens, without dropout."""
    tokens = tokens_of(user, parameters, config)
    x = [token.vector for token in tokens]
    for block in range(config.blocks):
        prefix = f"backbone.blocks.{block}."
        own = {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}
        if config.backbone == "hstu":
            x = _hstu_block(x, tokens, own, config, max_tokens)
        else:
            x = _llama_block(x, tokens, own, config)
    if config.backbone == "llama":
        x = [_rms_norm(row, parameters["backbone.norm"]) for row in x]
    return x


def _hstu_block(
    x: list[Tensor], tokens: list[Token], own: Parameters, config: ModelConfig, max_tokens: int
) -> list[Tensor]:
    heads, width = config.heads, config.head_width
    projected = [_silu(_layer_norm(row, own["norm_weight"], own["norm_bias"]) @ own["uvqk"]) for row in x]
    u, v, q, k = ([row[n * heads * width :][: heads * width] for row in projected] for n in range(4))

    def weights(query: int, head: int, keys: list[int]) -> list[Tensor]:
        part = slice(head * width, (head + 1) * width)
        scores = [
            q[query][part] @ k[key][part] + _bias(own, head, tokens[query], tokens[key], config) for key in keys
        ]
        return [_silu(score) / max_tokens for score in scores]

    outputs = []
    for query, row in enumerate(x):
        attended = torch.cat(
            [
                _attend(query, head, tokens, weights, [each[head * width :][:width] for each in v])
                for head in range(heads)
            ]
        )
        gated = u[query] * _layer_norm(attended, own["attention_norm_weight"], own["attention_norm_bias"])
        outputs.append(row + gated @ own["output"])
    return outputs


def _llama_block(x: list[Tensor], tokens: list[Token], own: Parameters, config: ModelConfig) -> list[Tensor]:
    heads, width = config.heads, config.head_width
    key_heads = config.key_heads or heads
    projected = [_rms_norm(row, own["attention_norm"]) @ own["qkv"] for row in x]
    q, k, v = [], [], []
    for row, token in zip(projected, tokens, strict=True):
        parts = [row[n * width : (n + 1) * width] for n in range(heads + 2 * key_heads)]
        q.append([_rotated(part, token.position) for part in parts[:heads]])
        k.append([_rotated(part, token.position) for part in parts[heads : heads + key_heads]])
        v.append(parts[heads + key_heads :])

    def weights(query: int, head: int, keys: list[int]) -> list[Tensor]:
        shared = head * key_heads // heads
        scores = [
            q[query][head] @ k[key][shared] / math.sqrt(width)
            + _bias(own, head, tokens[query], tokens[key], config)
            for key in keys
        ]
        exponentials = [score.exp() for score in scores]
        return [each / sum(exponentials) for each in exponentials]

    outputs = []
    for query, row in enumerate(x):
        attended = torch.cat(
            [
                _attend(query, head, tokens, weights, [each[head * key_heads // heads] for each in v])
                for head in range(heads)
            ]
        )
        between = row + attended @ own["attention_output"]
        both = _rms_norm(between, own["forward_norm"]) @ own["gate_up"]
        gate, up = both[: len(both) // 2], both[len(both) // 2 :]
        outputs.append(between + (_silu(gate) * up) @ own["down"])
    return outputs


def _attend(
    query: int,
    head: int,
    tokens: list[Token],
    weights: Callable[[int, int, list[int]], list[Tensor]],
    values: list[Tensor],
) -> Tensor:
    """A token sees itself and what came before it, except for other candidates."""
    keys = [key for key in range(query + 1) if key == query or not tokens[key].is_candidate]
    of_keys = zip(weights(query, head, keys), keys, strict=True)
    return sum((weight * values[key] for weight, key in of_keys), torch.zeros_like(values[query]))


def _bias(own: Parameters, head: int, query: Token, key: Token, config: ModelConfig) -> Tensor | float:
    bias: Tensor | float = 0.0
    if config.position_bias:
        bias = bias + own["position_bias"][head, query.position - key.position]
    if config.time_bias:
        elapsed = abs(query.asks_at - key.happened_at)
        bucket = math.floor(math.log(max(1, elapsed)) / SECONDS_PER_BUCKET)
        bias = bias + own["time_bias"][head, min(bucket, config.time_buckets - 1)]
    return bias


def _rotated(x: Tensor, position: int) -> Tensor:
    """Pairs ``(x_i, x_{i + n})`` of the two halves of length ``n``, turned by ``position * base^(-i / n)``."""
    half = len(x) // 2
    turned: list[Tensor] = [x[0]] * len(x)
    for i in range(half):
        angle = position * ROTARY_BASE ** (-i / half)
        turned[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        turned[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return torch.stack(turned)


def _silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.sum() / len(x)
    variance = (centred * centred).sum() / len(x)
    return centred / (variance + NORM_EPSILON).sqrt() * weight + bias


def _rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / ((x * x).sum() / len(x) + NORM_EPSILON).sqrt() * weight
