"""Approximate search against brute force: what it finds, and what it makes of what it found."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import pytest
import torch

from tests.serve.drawn_run import write_drawn_run
from unigrf_dist import from_pretrained
from unigrf_dist.cli import main
from unigrf_dist.data import Dataset, open_dataset
from unigrf_dist.errors import UserError
from unigrf_dist.serve import Recommender
from unigrf_dist.serve.approximate import ApproximateCatalogue, approximate_catalogue, build_index
from unigrf_dist.serve.export.read import load_export
from unigrf_dist.serve.export.write import export_run
from unigrf_dist.serve.server.versions import open_version
from unigrf_dist.synthetic import synthesize

K = 7
NUM_ITEMS = 3000
TEMPERATURE = 0.1


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("normalize", [True, False])
def test_the_nearest_items_that_may_appear_are_found_and_scored(normalize: bool) -> None:
    items, queries = drawn(NUM_ITEMS, 8, seed=1), drawn(40, 8, seed=2)
    live = torch.ones(NUM_ITEMS, dtype=torch.bool)
    live[::11] = False
    scores = queries.double() @ items.double().T
    if normalize:
        scores = torch.nn.functional.cosine_similarity(queries[:, None].double(), items[None].double(), dim=2)
    scores[:, ~live] = -torch.inf
    # Each user has seen the very best items, so that filtering afterwards would leave short lists.
    seen = scores.topk(30).indices
    scores.scatter_(1, seen, -torch.inf)
    offsets = torch.arange(0, 30 * 41, 30)
    index = build_index(items, normalize=normalize, live=live)
    found = index.search(queries, K, seen.flatten(), offsets, temperature=TEMPERATURE, allowed=live)
    best = scores.topk(K)
    common = (found.ids[:, :, None] == best.indices[:, None, :]).sum()
    assert common / best.indices.numel() > 0.6  # an eighth of the cells; of items without any structure
    assert common < best.indices.numel()
    assert torch.allclose(found.scores, scores.gather(1, found.ids), atol=1e-5)
    assert bool((found.scores.diff(dim=1) <= 0).all())
    expected = (scores.gather(1, found.ids) / TEMPERATURE).log_softmax(1)
    assert torch.allclose(found.log_probabilities, expected, atol=1e-4)


def test_where_every_cell_is_looked_at_the_search_is_exact() -> None:
    items, queries = drawn(200, 8, seed=1), drawn(9, 8, seed=2)
    items[150] = items[20]  # equal scores come by lowest id
    found = build_index(items, normalize=True, live=None).search(
        queries, 200, torch.tensor([3, 4, 5]), torch.tensor([0, 3, *[3] * 8]), temperature=1.0
    )
    scores = torch.nn.functional.cosine_similarity(queries[:, None].double(), items[None].double(), dim=2)
    scores[0, 3:6] = -torch.inf
    assert found.ids[0, -3:].tolist() == [-1] * 3
    order = scores.sort(dim=1, descending=True, stable=True).indices
    assert torch.equal(found.ids[1:], order[1:])
    assert torch.equal(found.ids[0, :-3], order[0, :-3])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("ann") / "set"
    synthesize(out, num_users=30, num_items=60, mean_length=8)
    return open_dataset(out)


@pytest.fixture(scope="module")
def exported(dataset: Dataset) -> Path:
    folder = dataset.path.parent
    write_drawn_run(folder / "run", dataset)
    told = export_run(folder / "run", folder / "bundle", blend={"rating >= 4": 0.5}, ann=True)
    assert told.recall == {10: 1.0, 100: 1.0}  # one cell: all items are looked at
    return folder / "bundle"


def test_an_export_is_searched_as_it_is_asked_to(dataset: Dataset, exported: Path) -> None:
    raw = dataset.raw_item_ids().to_pylist()
    history = [(raw[n], dataset.manifest.behaviours[n % 3], 100 * n) for n in range(9)]
    exact, near = from_pretrained(exported), from_pretrained(exported, search="ann")
    expected = exact.recommend(history=history, k=8, candidates=20)
    answer = near.recommend(history=history, k=8, candidates=20)
    assert [entry.item for entry in answer] == [entry.item for entry in expected]
    assert [entry.probabilities for entry in answer] == [entry.probabilities for entry in expected]
    # Its softmax is over the candidates alone.
    candidates = near.recommend(history=history, k=20, candidates=20)
    assert sum(math.exp(entry.log_retrieval) for entry in candidates) == pytest.approx(1, abs=1e-6)
    # Few allowed items are searched exactly: an index would look elsewhere.
    few = near.recommend(history=history, k=2, allow=raw[20:24])
    assert few == exact.recommend(history=history, k=2, allow=raw[20:24])
    assert open_version(exported, checkpoint="best", kept_bytes=0, search="ann").recommender.recommend(
        history=history, k=8, candidates=20
    ) == (answer)


def test_exact_search_is_the_default_up_to_a_million_items(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_export(exported)
    assert approximate_catalogue(run, "auto") is None
    monkeypatch.setattr("unigrf_dist.serve.approximate.EXACT_ITEMS", 59)
    assert isinstance(approximate_catalogue(run, "auto"), ApproximateCatalogue)
    assert approximate_catalogue(run, "exact") is None


def test_the_recall_stands_in_the_card_and_the_bytes_are_the_same_again(exported: Path, tmp_path: Path) -> None:
    card = (exported / "README.md").read_text()
    assert re.search(r"\| k \| recall \|\n\|---:\|---:\|\n\| 10 \| 1.0000 \|\n\| 100 \| 1.0000 \|\n", card)
    export_run(exported.parent / "run", tmp_path / "again", ann=True)
    assert (tmp_path / "again/catalogue.faiss").read_bytes() == (exported / "catalogue.faiss").read_bytes()


def test_what_is_missing_is_one_line(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = exported.parent / "run"
    with pytest.raises(UserError, match=r"no catalogue\.faiss here; make an export with `unigrf export --ann`"):
        Recommender.of(Recommender(run).run, search="ann")
    with pytest.raises(UserError, match="--search ann takes an export"):
        open_version(run, checkpoint="best", kept_bytes=0, search="ann")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=re.escape("no package faiss; pip install 'unigrf-dist[ann]'")):
        from_pretrained(exported, search="ann")
    monkeypatch.setattr("sys.argv", ["unigrf", "export", "--run", str(run), "--out", str(tmp_path / "o"), "--ann"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: --ann: no package faiss; pip install 'unigrf-dist[ann]'"
    assert list(tmp_path.iterdir()) == []
    assert from_pretrained(exported).run.index is not None  # exact search wants no faiss
