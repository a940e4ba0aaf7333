"""Ranks that differ are refused on every rank, with host, key and both values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.data.small_sets import distinct_users, write_users
from tests.spawn import run_ranks
from tests.train.small_run import small_config
from unigrf_dist.errors import UserError
from unigrf_dist.ranks.runtime import Runtime
from unigrf_dist.train.agreement import facts_of, prove_shared, refuse_differing


def said(facts: list[dict[str, str] | str]) -> str:
    own = facts[dist.get_rank()]
    try:
        refuse_differing(UserError(own) if isinstance(own, str) else own)
    except UserError as error:
        return str(error)
    return ""


def test_equal_ranks_go_on_and_others_are_refused_everywhere_by_key() -> None:
    same = {"train.seed": "1", "torch": "2"}
    assert run_ranks(2, said, [same, same]) == ["", ""]
    lines = run_ranks(3, said, [same, same, {**same, "train.seed": "7"}])
    assert len(set(lines)) == 1
    assert "train.seed is 7 on host" in lines[0]
    assert "(rank 2), but 1 on host" in lines[0]


def test_what_one_rank_alone_can_not_do_is_told_by_all() -> None:
    lines = run_ranks(2, said, [{"a": "1"}, "x.yaml: can't read the configuration"])
    assert len(set(lines)) == 1
    assert lines[0].startswith("x.yaml: can't read the configuration (on host ")
    assert lines[0].endswith("rank 1)")


def shares(folders: list[str]) -> str:
    rank = dist.get_rank()
    try:
        prove_shared(Path(folders[rank]), Runtime(rank, len(folders), torch.device("cpu")))
    except UserError as error:
        return str(error)
    return ""


def test_a_run_folder_that_is_not_shared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    one, other = str(tmp_path / "a"), str(tmp_path / "b")
    assert run_ranks(2, shares, [one, one]) == ["", ""]
    first, second = run_ranks(2, shares, [one, other])
    assert first.startswith(f"{one}: host ")
    assert "(rank 1) sees another folder" in first
    assert "(rank 1) sees another folder" in second


def test_facts_change_with_every_value_with_the_data_and_not_with_the_folder(tmp_path: Path) -> None:
    for name, users in (("a", [5, 3]), ("b", [5, 3]), ("c", [5, 4])):
        write_users(tmp_path / name, distinct_users(users))

    def facts(name: str, **changes: object) -> dict[str, str]:
        return facts_of(small_config(data__path=str(tmp_path / name), **changes))

    assert facts("a") == facts("b")
    assert facts("a") != facts("c")
    assert facts("a") != facts("a", objective__weighter={"gamma": 0.25})
    assert "deepspeed.optimizer.params.lr" in facts("a")
    with pytest.raises(UserError, match="no data set here"):
        facts("d")
