"""Long histories in overlapping chunks: every training event is trained on once per epoch, whatever the ranks."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.small_sets import Event, distinct_users, training_events_kept, users_of, write_users
from unigrf_dist.data import Dataset, JaggedBatch, TrainStream
from unigrf_dist.data.rows import RowPlan, Rows
from unigrf_dist.data.sequences import Sequences

LENGTHS = [1, 2, 3, 4, 9, 30, 5, 1, 3, 12, 7, 2, 8, 6, 61, 3, 40, 1, 4, 11]
USERS = distinct_users(LENGTHS)
TRAINED = [user[:-2] if len(user) >= 3 else user for user in USERS]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_users(tmp_path_factory.mktemp("sets") / "set", USERS)


def stream(dataset: Dataset, **changes: int | bool) -> TrainStream:
    arguments = {"global_batch_users": 3, "max_events": 6, "rank": 0, "world_size": 1, "seed": 5}
    arguments |= {"partitions": 7, "shuffle_users": 14, "chunk_context": 2, "prior_items": True}
    return TrainStream(dataset, **(arguments | changes))


class Chunk(NamedTuple):
    """One row of a batch, in plain lists."""

    user: int
    events: list[Event]
    context: int
    is_latest: bool
    prior: list[int]


def chunks_of(batch: JaggedBatch) -> list[Chunk]:
    if not batch.num_users:
        return []
    bounds = batch.prior_offsets.tolist()
    prior = [batch.prior_item_ids.tolist()[a:b] for a, b in pairwise(bounds)]
    told = zip(batch.context_lengths.tolist(), batch.is_latest.tolist(), prior, strict=True)
    return [Chunk(*pair, *rest) for pair, rest in zip(users_of(batch), told, strict=True)]


def global_batches(dataset: Dataset, world_size: int, epoch: int = 0, **changes: int) -> list[list[Chunk]]:
    """Per step the chunks of all ranks, in a fixed order."""
    ranks = [
        stream(dataset, rank=rank, world_size=world_size, **changes).epoch(epoch) for rank in range(world_size)
    ]
    return [
        sorted(chunk for batch in batches for chunk in chunks_of(batch)) for batches in zip(*ranks, strict=True)
    ]


def check_epoch(chunks: list[Chunk], trained: list[list[Event]], max_events: int, context: int) -> None:
    """What the definition asks of the chunks of one epoch."""
    counts = Counter(event for chunk in chunks for event in chunk.events[chunk.context :])
    assert counts == Counter(event for user in trained for event in user)
    latest = Counter(chunk.user for chunk in chunks if chunk.is_latest)
    assert latest == Counter(range(len(trained)))
    for chunk in chunks:
        whole, at = trained[chunk.user], len(chunk.prior)
        # A run of the history, what comes before it, and no more than fits.
        assert chunk.events == whole[at : at + len(chunk.events)]
        assert chunk.prior == [item for item, _, _ in whole[:at]]
        assert len(chunk.events) <= max_events + 1
        assert chunk.is_latest == (at + len(chunk.events) == len(whole))
        # Only the first chunk of a user trains on events with less than the context before them.
        assert chunk.context >= context if at else chunk.context == 0
        if chunk.is_latest:
            assert chunk.events == whole[-(max_events + 1) :]


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=15),
    max_events=st.integers(1, 9),
    context=st.integers(1, 9),
    partitions=st.integers(4, 9),
    row_group_users=st.integers(1, 5),
    epoch=st.integers(0, 2),
)
def test_every_event_is_trained_on_once_whatever_the_sizes(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    max_events: int,
    context: int,
    partitions: int,
    row_group_users: int,
    epoch: int,
) -> None:
    context = min(context, max_events)
    users = distinct_users(lengths)
    small = write_users(
        tmp_path_factory.mktemp("sets") / "set", users, row_group_users=row_group_users, shard_users=7
    )
    changes = {"max_events": max_events, "chunk_context": context, "partitions": partitions}
    steps = global_batches(small, 1, epoch, **changes)
    trained = [user[:-2] if len(user) >= 3 else user for user in users]
    check_epoch([chunk for step in steps for chunk in step], trained, max_events, context)
    assert len(steps) == stream(small, **changes).steps_per_epoch
    assert global_batches(small, 4, epoch, **changes) == steps


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_step_holds_the_same_chunks_on_any_number_of_ranks(dataset: Dataset, world_size: int) -> None:
    for epoch in (0, 3):
        assert global_batches(dataset, world_size, epoch) == global_batches(dataset, 1, epoch)


def test_an_epoch_goes_on_in_the_middle_on_other_ranks(dataset: Dataset) -> None:
    num_steps = stream(dataset).steps_per_epoch
    for seed in range(5):
        random, step, chunks = Random(seed), 0, []
        while step < num_steps:
            world_size, stop = random.choice([1, 2, 4]), random.randint(step, num_steps)
            for rank in range(world_size):
                source = stream(dataset, rank=rank, world_size=world_size).epoch(2, start_step=step)
                for batch, _ in zip(source, range(stop - step), strict=False):
                    chunks += chunks_of(batch)
            step = stop
        check_epoch(chunks, TRAINED, 6, 2)


@pytest.mark.parametrize("world_size", [1, 2, 4, 7])
def test_a_users_state_lies_with_its_latest_chunk(dataset: Dataset, world_size: int) -> None:
    """In every epoch, and end to end over the ranks in one order: as the enhancer's candidates are stored."""
    streams = [stream(dataset, rank=rank, world_size=world_size) for rank in range(world_size)]
    end_to_end = torch.cat([source.user_ids for source in streams])
    assert torch.equal(end_to_end, stream(dataset).user_ids)
    assert sorted(end_to_end.tolist()) == list(range(len(USERS)))
    sizes = [source.user_ids.numel() for source in streams]
    assert [source.first_user for source in streams] == [sum(sizes[:rank]) for rank in range(world_size)]
    assert len({source.order for source in streams}) == 1
    for source in streams:
        for epoch in range(2):
            chunks = [chunk for batch in source.epoch(epoch) for chunk in chunks_of(batch)]
            latest = [chunk.user for chunk in chunks if chunk.is_latest]
            assert sorted(latest) == sorted(source.user_ids.tolist())


def test_other_chunks_are_another_order_of_the_stored_users(dataset: Dataset) -> None:
    recent = stream(dataset, chunk_context=None)
    assert len({recent.order, stream(dataset).order, stream(dataset, max_events=9).order}) == 3


def test_only_chunks_train_on_the_events_before_the_window(dataset: Dataset) -> None:
    every = {event for user in TRAINED for event in user}
    recent = {
        event
        for batch in stream(dataset, chunk_context=None, prior_items=False).epoch(0)
        for _, events in users_of(batch)
        for event in events
    }
    assert recent == {event for user in USERS for event in training_events_kept(user, 6)}
    never = 1 - len(recent) / len(every)
    assert 0.3 < never < 0.7  # and 0 with chunks, which check_epoch counts


def test_rows_of_one_user_share_its_history() -> None:
    """The histories before 1,000 chunks of one user would be 500 times as long as the user's own."""
    items = np.arange(8_000)
    whole = Sequences(np.array([3]), np.array([0, 8_000]), items, np.zeros(8_000, np.int16), items)
    plan = RowPlan(8, 1)
    rows = Rows.cut(whole, whole.lengths, slice(200, 700), plan, prior=True).take(np.array([499, 0]))
    assert rows.prior is not None
    assert len(rows.prior.histories.item_ids) < 8_000
    prior, offsets = rows.prior.items()
    # Chunk k begins at event 8 k: 8 are new in each, of 9.
    assert offsets.tolist() == [0, 8 * 699, 8 * (699 + 200)]
    assert prior.tolist() == [*range(8 * 699), *range(8 * 200)]


@pytest.mark.parametrize("context", [0, 7])
def test_chunks_without_context_or_of_context_alone_are_refused(dataset: Dataset, context: int) -> None:
    with pytest.raises(ValueError, match=f"chunk_context must be in \\[1, 6\\], got {context}"):
        stream(dataset, chunk_context=context)


def test_all_spans_are_those_of_every_user_in_turn() -> None:
    spans = RowPlan(4, 2).all_spans(np.array([3, 12, 0]))
    # A window of 5: 0-5, then 3 at a time with 2 and more before them; a user without training events has one row.
    assert spans.starts.tolist() == [0, 0, 3, 6, 7, 0]
    assert spans.stops.tolist() == [3, 5, 8, 11, 12, 0]
    assert spans.context.tolist() == [0, 0, 2, 2, 4, 0]
    assert spans.is_latest.tolist() == [True, False, False, False, True, True]
