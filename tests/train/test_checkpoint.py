"""Checkpoints: bit-equal continuation, other numbers of ranks, and what can go wrong."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from tests.spawn import run_ranks
from tests.train.small_run import global_batch, join, small_config, small_step, whole_weights
from unigrf_dist.errors import UserError

LENGTHS = [9, 1, 13, 0, 4, 2, 7, 3]


def advance(step: Any, first: int, last: int) -> None:
    """Train on the global batches ``first:last``; each rank has some neighbouring users."""
    import torch.distributed as dist

    for number in range(first, last):
        users = global_batch(number, LENGTHS)
        own = torch.arange(len(users)).tensor_split(dist.get_world_size())[dist.get_rank()].tolist()
        step(join([users[user] for user in own]), number)


def dealt_step(config: Any) -> Any:
    import torch.distributed as dist

    from unigrf_dist.ranks.runtime import start

    start(60)
    shares = torch.arange(len(LENGTHS)).tensor_split(dist.get_world_size())
    first = sum(len(share) for share in shares[: dist.get_rank()])
    return small_step(config, shares[dist.get_rank()], first_row=first)


def train_and_save(run: Path, config: Any, save_after: int, steps: int) -> dict[str, torch.Tensor]:
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
    from unigrf_dist.train.checkpoints.state import TrainState

    step = dealt_step(config)
    checkpoints = Checkpoints(run, step.engine, step.table, step.candidates, keep=1)
    advance(step, 0, save_after)
    state = TrainState(step=save_after, epoch=2, step_in_epoch=1, weighter=step.weighter.state_dict())
    checkpoints.note_schedule(state)
    checkpoints.save(state)
    advance(step, save_after, steps)
    return whole_weights(step)


def load_and_train(run: Path, config: Any, steps: int) -> dict[str, torch.Tensor]:
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints

    step = dealt_step(config)
    state = Checkpoints(run, step.engine, step.table, step.candidates, keep=1).load("latest")
    step.weighter.load_state_dict(state.weighter)
    assert (state.epoch, state.step_in_epoch) == (2, 1)
    advance(step, state.step, steps)
    return whole_weights(step)


BALANCE = {"warmup_steps": 1, "smoothing": 0.5, "window_steps": 2}
ENHANCER = {"candidates": 5, "hard_negatives": 2, "soft_positives": 2, "threshold": 0.5, "warmup_epochs": 1}
SCHEDULE = {"type": "WarmupLR", "params": {"warmup_num_steps": 6, "warmup_max_lr": 1e-2, "warmup_type": "linear"}}


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        (0, {"model__dropout": 0.3}),
        (1, {"tables__optimizer": "rowwise_adagrad"}),
        (2, {"model__dropout": 0.3, "deepspeed__scheduler": SCHEDULE}),
        (3, {"model__dropout": 0.3}),
        (2, {"deepspeed__bf16": {"enabled": True}}),
        (3, {"deepspeed__bf16": {"enabled": True}}),
        (2, {"objective__enhancer": ENHANCER, "objective__weighter": {"strategy": "gradient", **BALANCE}}),
        (3, {"model__backbone": "llama", "objective__weighter": {"strategy": "descent_rate", **BALANCE}}),
        (1, {"objective__weighter": {"strategy": "uncertainty", **BALANCE}}),
    ],
    ids=[
        "zero0",
        "zero1-adagrad",
        "zero2-schedule",
        "zero3",
        "zero2-bf16",
        "zero3-bf16",
        "enhancer-gradient",
        "llama-descent-rate",
        "uncertainty",
    ],
)
def test_a_resumed_run_is_bit_equal_to_one_that_never_stopped(tmp_path: Path, stage: int, changes: dict) -> None:
    config = small_config(stage, **changes)
    through = run_ranks(2, train_and_save, tmp_path, config, 3, 6)
    resumed = run_ranks(2, load_and_train, tmp_path, config, 6)
    for before, after in zip(through, resumed, strict=True):
        for name, value in before.items():
            assert torch.equal(after[name], value), name


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_checkpoint_goes_on_with_another_number_of_ranks(tmp_path: Path, ranks: int) -> None:
    through = run_ranks(2, train_and_save, tmp_path, small_config(2), 3, 6)
    for weights in run_ranks(ranks, load_and_train, tmp_path, small_config(3), 6):
        for name, value in through[0].items():
            assert (weights[name] - value).abs().max() < 1e-5, name


def save_many(run: Path) -> list[str]:
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
    from unigrf_dist.train.checkpoints.state import TrainState

    step = small_step(small_config())
    checkpoints = Checkpoints(run, step.engine, step.table, keep=2)
    for number in range(1, 6):
        checkpoints.save(TrainState(step=number), best=number == 2)
    return sorted(p.name for p in (run / "checkpoints").iterdir())


def test_the_latest_and_the_best_are_kept(tmp_path: Path) -> None:
    (names,) = run_ranks(1, save_many, tmp_path)
    assert names == ["best", "latest", "step-00000002", "step-00000004", "step-00000005"]
    assert (tmp_path / "checkpoints" / "best").read_text() == "step-00000002\n"


def load_message(run: Path, config: Any, name: str = "latest", catalogue: str = "") -> str:
    from unigrf_dist.data.vocabularies import Vocabularies
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints

    step, vocabularies = small_step(config), Vocabularies(lambda _: catalogue)
    try:
        Checkpoints(run, step.engine, step.table, keep=1, vocabularies=vocabularies).load(name)
    except UserError as error:
        return str(error)
    return ""


def test_what_can_not_be_loaded_is_told_in_one_line(tmp_path: Path) -> None:
    run_ranks(1, train_and_save, tmp_path, small_config(), 1, 1)
    folder = tmp_path / "checkpoints" / "step-00000001"
    (other_size,) = run_ranks(1, load_message, tmp_path, small_config(model__blocks=3))
    assert "checkpoint of another model: backbone.blocks.2." in other_size
    (other_items,) = run_ranks(1, load_message, tmp_path, small_config(), "latest", "of other items")
    assert "checkpoint of other data" in other_items
    (other_width,) = run_ranks(1, load_message, tmp_path, small_config(model__width=16))
    assert "its item table is [83, 12], the configuration and data give [83, 16]" in other_width
    (absent,) = run_ranks(1, load_message, tmp_path, small_config(), "step-00000009")
    assert "no such checkpoint; there are: step-00000001" in absent
    data = next(folder.glob("*.safetensors"))
    data.write_bytes(data.read_bytes()[:-1])
    (truncated,) = run_ranks(1, load_message, tmp_path, small_config())
    assert f"{folder}: the checkpoint is damaged: {data.name} has " in truncated
    (folder / "state.json").unlink()
    (missing,) = run_ranks(1, load_message, tmp_path, small_config())
    assert "state.json can't be read: No such file" in missing
    for message in (other_size, other_width, absent, truncated, missing):
        assert "\n" not in message


def save_on_full_disk(run: Path, where: str) -> list[str]:
    import torch.distributed as dist

    from unigrf_dist.train.checkpoints import checkpoints
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints
    from unigrf_dist.train.checkpoints.state import TrainState

    step = small_step(small_config())
    saved = Checkpoints(run, step.engine, step.table, keep=1)
    saved.save(TrainState(step=1))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "tensors" and dist.get_rank() == 1:
        checkpoints.write_blocks = full  # type: ignore[assignment]
    if where == "state":
        checkpoints.write_json = full
    advance(step, 0, 1)
    try:
        saved.save(TrainState(step=2))
    except UserError as error:
        return [str(error), *sorted(p.name for p in (run / "checkpoints").iterdir())]
    return []


@pytest.mark.parametrize("where", ["tensors", "state"])
def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_half_one(tmp_path: Path, where: str) -> None:
    for message, *left in run_ranks(2, save_on_full_disk, tmp_path, where):
        assert "step-00000002: the checkpoint could not be saved" in message
        assert "No space left on device" in message
        assert left == ["latest", "step-00000001"]
    (loaded,) = run_ranks(1, load_message, tmp_path, small_config())
    assert loaded == ""


SHARDINGS = ["row_wise", "table_wise", "column_wise"]
OPTIMIZERS = ["adam", "rowwise_adagrad", "adagrad", "sgd"]


def save_sharded(run: Path) -> None:
    """A checkpoint of every sharding and optimizer, after two steps."""
    for sharding in SHARDINGS:
        for optimizer in OPTIMIZERS:
            train_and_save(run / sharding / optimizer, sharded(sharding, optimizer), 2, 2)


def load_sharded(run: Path) -> dict[tuple[str, str, str], dict[str, torch.Tensor]]:
    """Each of them under every sharding: the weights after loading and after two more steps."""
    found = {}
    for source in SHARDINGS:
        for sharding in SHARDINGS:
            for optimizer in OPTIMIZERS:
                loaded = load_and_train(run / source / optimizer, sharded(sharding, optimizer), 4)
                found[source, sharding, optimizer] = loaded
    return found


def sharded(sharding: str, optimizer: str) -> Any:
    return small_config(tables__sharding=sharding, tables__optimizer=optimizer, model__width=16)


@pytest.mark.parametrize(("saved_on", "loaded_on"), [(1, 2), (2, 1), (2, 4), (4, 2)])
def test_every_sharding_and_optimizer_reads_every_other(tmp_path: Path, saved_on: int, loaded_on: int) -> None:
    run_ranks(saved_on, save_sharded, tmp_path, timeout_seconds=400)
    found = run_ranks(loaded_on, load_sharded, tmp_path, timeout_seconds=600)[0]
    for optimizer in OPTIMIZERS:
        reference = found["row_wise", "row_wise", optimizer]
        for (source, sharding, of), weights in found.items():
            # Split columns have accumulators of their own, which a mean over the row can't be told back into.
            if of == optimizer and not (of == "rowwise_adagrad" and "column_wise" in (source, sharding)):
                for name, value in reference.items():
                    assert (weights[name] - value).abs().max() < 1e-5, (source, sharding, optimizer, name)


def flipped_messages(run: Path, config: Any, flips: list[tuple[str, int]]) -> list[str]:
    """What loading says with one bit flipped at a time."""
    step = small_step(config)
    from unigrf_dist.train.checkpoints.checkpoints import Checkpoints

    checkpoints, said = Checkpoints(run, step.engine, step.table, keep=1), []
    for name, bit in flips:
        file = run / "checkpoints" / "step-00000001" / name
        honest = file.read_bytes()
        damaged = bytearray(honest)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            checkpoints.load("latest")
            said.append("")
        except UserError as error:
            said.append(str(error))
        file.write_bytes(honest)
    return said


def test_every_flipped_bit_is_detected(tmp_path: Path) -> None:
    run_ranks(2, train_and_save, tmp_path, small_config(), 1, 1)
    folder, random = tmp_path / "checkpoints" / "step-00000001", Random(7)
    files = sorted(folder.iterdir())
    assert [file.suffix for file in files] == [".json", ".safetensors", ".safetensors", ".json"]
    flips = [(file.name, random.randrange(8 * file.stat().st_size)) for file in files for _ in range(25)]
    (said,) = run_ranks(1, flipped_messages, tmp_path, small_config(), flips)
    assert ["the checkpoint is damaged" in message for message in said] == [True] * len(flips)


def test_a_file_of_another_step_is_detected(tmp_path: Path) -> None:
    run_ranks(1, save_many, tmp_path)
    older, newer = (tmp_path / "checkpoints" / f"step-0000000{step}" for step in (4, 5))
    for name in ("rank-00000.safetensors", "state.json", "index.json"):
        honest = (newer / name).read_bytes()
        (newer / name).write_bytes((older / name).read_bytes())
        (message,) = run_ranks(1, load_message, tmp_path, small_config(), "step-00000005")
        # All steps of this run have the same weights, so that a file of blocks may well be the same.
        assert "damaged" in message or (older / name).read_bytes() == honest
        (newer / name).write_bytes(honest)


@pytest.mark.parametrize("name", ["../outside", "/tmp", "step-1/../..", "..", "", "best\nlatest"])
def test_a_pointer_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    from unigrf_dist.train.checkpoints.folders import CheckpointFolders

    (tmp_path / "outside").mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest").write_text(name)
    with pytest.raises(UserError, match="is no name of a checkpoint"):
        CheckpointFolders(tmp_path).resolve("latest")
    if name:
        with pytest.raises(UserError, match="is no name of a checkpoint"):
            CheckpointFolders(tmp_path).resolve(name)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A planted pickle under every name that torch's own checkpoints have."""
    run_ranks(1, train_and_save, tmp_path, small_config(), 1, 1)
    folder = tmp_path / "checkpoints" / "step-00000001"
    proof = tmp_path / "was-run"
    for name in (".metadata", "__0_0.distcp", "state.pt"):
        (folder / name).write_bytes(pickle.dumps(_Planted(proof)))
    (loaded,) = run_ranks(1, load_message, tmp_path, small_config())
    assert loaded == ""
    assert not proof.exists()


class _Planted:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.proof,)
