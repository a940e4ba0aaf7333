"""An export: the bytes whatever ranks wrote the checkpoint, the answers of the run, and no damage unnoticed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.serve.drawn_run import STEP, write_drawn_run
from unigrf_dist import Recommender, from_pretrained
from unigrf_dist.cli import main
from unigrf_dist.data import Dataset, open_dataset
from unigrf_dist.errors import UserError
from unigrf_dist.serve.export.weights import load_tensors, quantized, save_tensors
from unigrf_dist.serve.export.write import export_run
from unigrf_dist.synthetic import synthesize

BLEND = {"rating >= 4": 0.5, "rating >= 2": -1.5}
NOT_THERE = ["torchrec", "deepspeed", "triton", "fbgemm_gpu", "duckdb", "typer", "rich", "psutil", "scipy"]
WITH_FEATURES = {"model__item_features": ["group"], "model__user_features": ["taste"]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("export") / "set"
    synthesize(out, num_users=30, num_items=40, mean_length=8)
    return open_dataset(out)


@pytest.fixture(scope="module")
def run(dataset: Dataset) -> Path:
    folder = dataset.path.parent / "run"
    write_drawn_run(folder, dataset, **WITH_FEATURES)
    record = {
        "checkpoint": STEP,
        "num_users": 30,
        "protocol": {"candidates": 40},
        "model": {
            "retrieval": {"ndcg@10": {"value": 0.125, "low": 0.1, "high": 0.25}},
            "ranking": {"rating >= 4": {"auc": {"value": None, "low": None, "high": None}}},
        },
    }
    (folder / "metrics.json").write_text(json.dumps({"schema": 1, "splits": {"test": record}}))
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    export_run(run, run.parent / "bundle", blend=BLEND)
    return run.parent / "bundle"


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def requests(dataset: Dataset) -> list[list[tuple]]:
    """Histories longer and shorter than what the model sees."""
    behaviours = dataset.manifest.behaviours
    raw = dataset.raw_item_ids().to_pylist()
    return [
        [(raw[(start + 7 * n) % len(raw)], behaviours[n % len(behaviours)], 90_000 * n) for n in range(length)]
        for start, length in ((0, 1), (3, 9), (5, 30))
    ]


def test_an_export_has_the_same_bytes_from_four_ranks_and_from_one(
    dataset: Dataset, run: Path, exported: Path, tmp_path: Path
) -> None:
    write_drawn_run(tmp_path / "run", dataset, files=4, **WITH_FEATURES)
    shutil.copy(run / "metrics.json", tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "bundle", blend=BLEND)
    four, one = content(tmp_path / "bundle"), content(exported)
    assert four == one


def test_an_export_answers_as_the_run_does(dataset: Dataset, run: Path, exported: Path) -> None:
    of_run, of_export = Recommender(run), from_pretrained(exported)
    for history in requests(dataset):
        # The export brings the lambdas that it was made with.
        expected = of_run.recommend(history=history, k=12, candidates=30, blend=BLEND)
        assert of_export.recommend(history=history, k=12, candidates=30) == expected
        without = of_run.recommend(history=history, k=12)
        assert of_export.recommend(history=history, k=12, blend={}) == without
        assert without != expected
    nobody = of_export.recommend(history=[], k=3)
    assert nobody.source == "popularity"
    assert nobody == of_run.recommend(history=[], k=3)


def test_an_export_has_no_users(exported: Path) -> None:
    with pytest.raises(UserError, match="an export knows no users; give history"):
        from_pretrained(exported).recommend(user=1)


def test_an_export_answers_without_the_training_packages(exported: Path) -> None:
    code = f"""
import sys
for name in {NOT_THERE}:
    sys.modules[name] = None  # an import of it fails
from unigrf_dist import from_pretrained
answer = from_pretrained({str(exported)!r}).recommend(history=[(1, {{"rating": 5}}, 10)], k=4)
assert len(answer) == 4 and answer.source == "model", answer
assert not [name for name in sys.modules if name.startswith("unigrf_dist.train")]
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "file", ["config.json", "items.parquet", "README.md", "model-*", "*.index.json", "MANIFEST.json"]
)
def test_a_flipped_byte_is_one_line_that_names_the_file(exported: Path, file: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, text in content(exported).items():
        (copy / name).write_bytes(text)
    (damaged,) = copy.glob(file)
    altered = bytearray(damaged.read_bytes())
    altered[len(altered) // 2] ^= 1
    damaged.write_bytes(altered)
    with pytest.raises(UserError) as refused:
        from_pretrained(copy)
    assert str(refused.value).startswith(f"{damaged}: ")
    assert "\n" not in str(refused.value)
    damaged.unlink()
    with pytest.raises(UserError, match=re.escape(damaged.name)):
        from_pretrained(copy)


def test_an_export_appears_whole_or_not_at_all(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine").write_text("mine")
    words = ["--run", str(run), "--out", str(tmp_path / "used")]
    monkeypatch.setattr("sys.argv", ["unigrf", "export", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "used: there is something already; give a folder that does not exist yet" in line

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unigrf_dist.serve.export.write.save_tensors", full)
    with pytest.raises(UserError, match="can't be written: No space left on device"):
        export_run(run, tmp_path / "new")
    with pytest.raises(UserError, match="blend names 'rating >= 5'"):
        export_run(run, tmp_path / "new", blend={"rating >= 5": 1.0})
    assert list(tmp_path.rglob("*")) == [tmp_path / "used", tmp_path / "used" / "mine"]


def test_the_card_tells_data_figures_lambda_and_limits(exported: Path, dataset: Dataset) -> None:
    card = (exported / "README.md").read_text()
    assert f"{dataset.num_users:,} users, {dataset.num_items:,} items" in card
    assert "the last is test, the one before it validation" in card
    assert "| ndcg@10 | 0.1250 | 0.1000 to 0.2500 |" in card
    assert "auc" not in card  # undefined there
    assert "`rating >= 4`: 0.5, `rating >= 2`: -1.5" in card
    assert "calibrated on items that users came to consume" in card
    example = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert example is not None
    result = subprocess.run(
        [sys.executable, "-c", example.group(1)], cwd=exported, capture_output=True, text=True, check=False
    )
    assert len(result.stdout.splitlines()) == 10, result.stderr


def test_items_stand_in_the_order_of_the_tables_rows(exported: Path, dataset: Dataset) -> None:
    rows = pq.read_table(exported / "items.parquet").to_pylist()
    raw, counts = dataset.raw_item_ids().to_pylist(), dataset.training_counts().tolist()
    expected = [
        {"row": n, "raw_id": i, "training_events": c} for n, (i, c) in enumerate(zip(raw, counts, strict=True))
    ]
    assert rows == expected


def test_tensors_are_split_into_files_that_the_index_names(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0), "b": torch.arange(100.0), "c": torch.arange(3), "d": torch.ones(2, 2)}
    save_tensors(tmp_path, tensors, shard_bytes=64)
    assert len(list(tmp_path.glob("model-*-of-00003.safetensors"))) == 3
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 24 + 400 + 24 + 16
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / file)[name], tensors[name])
    read = load_tensors(tmp_path)
    assert {name: t.tolist() for name, t in read.items()} == {name: t.tolist() for name, t in tensors.items()}


def test_int8_errs_by_half_a_step_and_takes_a_quarter(run: Path, exported: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "small", quantize="int8")
    whole, small = from_pretrained(exported).run.tables, from_pretrained(tmp_path / "small").run.tables
    for name, table in whole.weights.items():
        # Half a step, and what rounding the scale to 8 bits may add to it at the far end.
        bound = table.abs().amax(1, keepdim=True) / 127 * (0.5 + 127 * 2**-8)
        assert bool(((small.weights[name] - table).abs() <= bound).all())
        assert float((small.weights[name] - table).abs().max()) > 0
    steps, scale = quantized(torch.randn(1000, 48))
    assert steps.nbytes + scale.nbytes <= 0.27 * 1000 * 48 * 4
    stored = load_file(tmp_path / "small" / "model-00001-of-00001.safetensors")
    assert stored["tables.item"].dtype == torch.int8


def test_rows_of_zeros_and_of_tiny_values_survive_int8() -> None:
    table = torch.tensor([[0.0, 0.0], [1e-30, -5e-31], [3e30, 1.0]])
    steps, scale = quantized(table)
    back = steps.float() * scale.float()[:, None]
    assert back.isfinite().all()
    assert torch.equal(back[0], table[0])
    assert torch.allclose(back[:, 0], table[:, 0], rtol=0.01, atol=0)
