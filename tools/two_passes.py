"""Users per CPU-second: both stages behind one reading of a history, or each stage with a reading of its own.

python tools/two_passes.py --run runs/demo --users 512
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.data.sequences import Sequences
from unigrf_dist.serve import Recommender

_TOGETHER = 64


class Ways:
    """Ways to rank candidates of users of a run's data set, after their last event.

    Args:
        recommender: the run.
        users: how many users.
    """

    def __init__(self, recommender: Recommender, users: int) -> None:
        self._run, self._stages = recommender.run, recommender.stages
        self._options = recommender.options(k=10, candidates=100)
        self._histories = recommender.histories_of(np.arange(users))

    def _batches(self) -> Iterator[tuple[Sequences, np.ndarray]]:
        for first in range(0, self._histories.num_users, _TOGETHER):
            part = self._histories.take(slice(first, first + _TOGETHER))
            yield part, part.timestamps[part.offsets[1:] - 1]

    def one_pass(self) -> None:
        """What `Recommender` does."""
        for part, asked in self._batches():
            self._stages.lists(part, asked, self._options)

    def history_read_twice(self) -> None:
        """A ranking stage that reads the history again, and then all candidates at once."""
        for part, asked in self._batches():
            self._stages.queries(part, asked)
            self._stages.lists(part, asked, self._options)

    @torch.no_grad()
    def history_read_per_candidate(self) -> None:
        """A ranking stage to which history and candidate are one sequence."""
        model, tables, most = self._run.model, self._run.tables, self._run.config.data.max_events - 1
        for part, asked in self._batches():
            seen = torch.from_numpy(part.item_ids), torch.from_numpy(part.offsets)
            found = self._stages.exact.search(self._stages.queries(part, asked), 100, *seen, temperature=1.0)
            for user, candidates in enumerate(found.ids.clamp_min(0)):
                events = part.take(slice(user, user + 1)).to_batch()
                number, count = min(events.num_events, most), len(candidates)
                last = torch.stack(
                    [candidates, torch.zeros_like(candidates), torch.full((count,), int(asked[user]))]
                )
                columns = (events.item_ids, events.behaviours, events.timestamps)
                items, behaviours, times = (
                    torch.cat([column[-number:].expand(count, -1), own[:, None]], dim=1).flatten()
                    for column, own in zip(columns, last, strict=True)
                )
                offsets = torch.arange(count + 1) * (number + 1)
                model(tables.items[items], JaggedBatch(items, behaviours, times, offsets, offsets[:-1]))


def main() -> None:
    """Measure on one thread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run without side features")
    parser.add_argument("--users", type=int, default=512, help="users; an eighth of them where it takes long")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recommender = Recommender(arguments.run)
    Ways(recommender, _TOGETHER).one_pass()
    for name, share in (("one_pass", 1), ("history_read_twice", 1), ("history_read_per_candidate", 8)):
        users = arguments.users // share
        way = getattr(Ways(recommender, users), name)
        began = time.process_time()
        way()
        print(f"{name}: {users / (time.process_time() - began):.0f} users per CPU-second")


if __name__ == "__main__":
    main()
