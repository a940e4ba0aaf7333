"""What this program adds to DeepSpeed's section of a configuration."""

from __future__ import annotations

from tests.spawn import run_ranks
from tests.train.small_run import small_config


def schedule_of(epochs: int, total: object) -> object:
    from unigrf_dist.ranks.runtime import start
    from unigrf_dist.train.engine import engine_config

    start(60)
    params = {"total_num_steps": total, "warmup_num_steps": 2}
    config = small_config(train__epochs=epochs, deepspeed__scheduler={"type": "WarmupCosineLR", "params": params})
    # Batches of 8 users.
    return engine_config(config, num_users=41)["scheduler"]["params"]["total_num_steps"]


def test_an_automatic_schedule_ends_with_the_run_and_a_given_one_stays() -> None:
    assert run_ranks(1, schedule_of, 3, "auto") == [18]
    assert run_ranks(1, schedule_of, 3, 7) == [7]
