"""Which folders hold a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from unigrf_dist.errors import UserError
from unigrf_dist.train.run_folder import refuse_used_folder


def test_what_ended_before_its_first_checkpoint_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {}\n")
    (tmp_path / "log.jsonl").write_text("")
    refuse_used_folder(tmp_path)


def test_a_folder_with_a_checkpoint_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest").write_text("step-00000001\n")
    with pytest.raises(UserError, match="holds a run already"):
        refuse_used_folder(tmp_path)
