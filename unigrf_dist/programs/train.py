"""One rank of a training run: ``deepspeed --module unigrf_dist.train --config FILE --run DIR``."""

from __future__ import annotations

import argparse
from pathlib import Path

from unigrf_dist.ranks.worker import run_worker


def main() -> None:
    parser = argparse.ArgumentParser(prog="unigrf_dist.train", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML file of the run")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run; made if it is not there")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value")
    parser.add_argument("--resume", action="store_true", help="go on from the run's latest checkpoint")
    parser.add_argument("--local_rank", type=int, help="given by the deepspeed launcher; LOCAL_RANK counts")
    arguments = parser.parse_args()
    run_worker(lambda: _train(arguments))


def _train(arguments: argparse.Namespace) -> int:
    from unigrf_dist.config import load_config
    from unigrf_dist.ranks.runtime import start
    from unigrf_dist.train.run_folder import keep_config, open_run

    config = load_config(arguments.config, arguments.set)
    runtime = start(config.train.timeout_seconds)
    open_run(arguments.run, runtime, resume=arguments.resume)

    from unigrf_dist.train.build import build_parts
    from unigrf_dist.train.loop import Trainer

    trainer = Trainer(build_parts(config, runtime), arguments.run, resume=arguments.resume)
    keep_config(arguments.run, config, runtime)
    return 0 if trainer.run() else STOPPED


STOPPED = 130  # what a shell reports of a program ended by Ctrl-C

if __name__ == "__main__":
    main()
