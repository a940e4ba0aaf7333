"""What side features add to tokens, against its definition, index by index."""

from __future__ import annotations

import pytest
import torch

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.data.feature_files import ItemCodes
from unigrf_dist.model import side_features
from unigrf_dist.model.side_features import SideFeatures

WIDTH = 6
# Item 0 has two genres, item 1 none, item 2 one, item 3 three.
GENRES = [[2, 4], [], [1], [1, 2, 3]]
YEARS = [3, 0, 1, 3]
GENDERS, AGES = [1, 2, 0], [5, 1, 0]


def features() -> SideFeatures:
    flat = [code for codes in GENRES for code in codes]
    offsets = torch.tensor([0, 2, 2, 3, 6], dtype=torch.int32)
    return SideFeatures(
        {
            "genre": ItemCodes(torch.tensor(flat, dtype=torch.int32), offsets, 5),
            "year": ItemCodes(torch.tensor(YEARS, dtype=torch.int32), None, 4),
        },
        {"gender": 3, "age": 6},
        torch.device("cpu"),
    )


def batch_of(events: list[list[int]], users: list[int]) -> JaggedBatch:
    """A batch of these users, each with the items of an inner list."""
    items = torch.tensor([item for user in events for item in user], dtype=torch.int64)
    offsets = torch.tensor([0, *torch.tensor([len(user) for user in events]).cumsum(0).tolist()])
    codes = torch.tensor([[GENDERS[user], AGES[user]] for user in users])
    return JaggedBatch(items, items, items, offsets, torch.tensor(users), codes)


def tables() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    rows = features().cardinalities
    return {name: torch.randn(number, WIDTH, generator=generator) for name, number in rows.items()}


def added(
    batch: JaggedBatch, vectors: dict[str, torch.Tensor], candidates: torch.Tensor | None = None
) -> torch.Tensor:
    lookup = features().lookup(batch, candidates)
    return lookup.combine({name: vectors[name][ids] for name, ids in lookup.ids.items()})


def defined(events: list[list[int]], users: list[int], vectors: dict[str, torch.Tensor]) -> torch.Tensor:
    rows = []
    for user, items in zip(users, events, strict=True):
        for item in items:
            genres = [vectors["item_genre"][code] for code in GENRES[item] or [0]]
            row = torch.stack(genres).mean(0) + vectors["item_year"][YEARS[item]]
            rows.append(row + vectors["user_gender"][GENDERS[user]] + vectors["user_age"][AGES[user]])
    return torch.stack(rows)


@pytest.mark.parametrize("whole_rows", [0, 4, 1024])
def test_an_index_gets_the_mean_of_each_features_values(whole_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether tables are looked up whole or by their distinct rows."""
    monkeypatch.setattr(side_features, "_WHOLE_TABLE_ROWS", whole_rows)
    events, users = [[0, 3, 0], [], [1, 2]], [2, 0, 1]
    vectors = tables()
    torch.testing.assert_close(added(batch_of(events, users), vectors), defined(events, users, vectors))


@pytest.mark.parametrize("whole_rows", [0, 1024])
def test_gradients_reach_every_value_that_occurs(whole_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_features, "_WHOLE_TABLE_ROWS", whole_rows)
    events, users = [[0, 3], [2, 2]], [1, 0]
    ours = {name: value.requires_grad_() for name, value in tables().items()}
    theirs = {name: value.requires_grad_() for name, value in tables().items()}
    weight = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(3))
    (added(batch_of(events, users), ours) * weight).sum().backward()
    (defined(events, users, theirs) * weight).sum().backward()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name].grad, value.grad)


def test_candidates_get_what_events_of_their_users_get() -> None:
    """Behind the events; what stands for no item may get anything."""
    vectors = tables()
    candidates = torch.tensor([[3, 0], [1, -1]])
    ours = added(batch_of([[2], [0, 1]], [2, 0]), vectors, candidates)
    assert ours.shape == (7, WIDTH)
    theirs = torch.cat([defined([[2], [0, 1]], [2, 0], vectors), defined([[3, 0], [1]], [2, 0], vectors)])
    torch.testing.assert_close(ours[:6], theirs)


def test_small_tables_are_looked_up_whole_and_large_ones_once_per_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_features, "_WHOLE_TABLE_ROWS", 4)
    ids = features().lookup(batch_of([[2, 2, 2]], [0])).ids
    assert {name: each.tolist() for name, each in ids.items()} == {
        "item_genre": [0, 1],  # the items of fewer values than others end in code 0, with no weight
        "item_year": [0, 1, 2, 3],
        "user_gender": [0, 1, 2],
        "user_age": [5],
    }


def test_an_empty_batch_looks_up_but_adds_nothing() -> None:
    lookup = features().lookup(JaggedBatch.empty())
    vectors = {name: torch.ones(ids.numel(), WIDTH, requires_grad=True) for name, ids in lookup.ids.items()}
    combined = lookup.combine(vectors)
    assert combined.shape == (0, WIDTH)
    combined.sum().backward()
    assert all(value.grad is not None and not value.grad.any() for value in vectors.values())


def test_a_batch_without_the_users_codes_is_refused() -> None:
    none = torch.zeros(1, dtype=torch.int64)
    batch = JaggedBatch(none, none, none, torch.tensor([0, 1]), none)
    with pytest.raises(ValueError, match="with_user_features"):
        features().lookup(batch)


@pytest.mark.parametrize(("cardinality", "ids"), [(1024, list(range(1024))), (1025, [7, 1000])])
def test_a_table_of_1024_rows_is_the_largest_that_is_looked_up_whole(cardinality: int, ids: list[int]) -> None:
    years = ItemCodes(torch.tensor([1000, 7], dtype=torch.int32), None, cardinality)
    none = torch.zeros(0, dtype=torch.int32)
    tags = ItemCodes(torch.tensor([7, 1000], dtype=torch.int32), torch.tensor([0, 1, 2]), cardinality)
    empty = ItemCodes(none, torch.tensor([0, 0, 0]), cardinality)
    of = SideFeatures({"year": years, "tag": tags, "none": empty}, {}, torch.device("cpu"))
    found = of.lookup(JaggedBatch(*[torch.tensor([0, 1, 1])] * 3, torch.tensor([0, 3]), torch.tensor([0]))).ids
    # Items of one value at most have no further code beside it: a row that is looked up is a row that moves.
    assert found["item_year"].tolist() == found["item_tag"].tolist() == ids
    assert found["item_none"].tolist() == (ids if cardinality == 1024 else [0])
    assert {each.dtype for each in found.values()} == {torch.int64}


def test_no_features_are_false_and_any_are_true() -> None:
    assert not SideFeatures({}, {}, torch.device("cpu"))
    assert SideFeatures({}, {"age": 3}, torch.device("cpu"))
