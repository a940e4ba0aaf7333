"""Steps whose loss or gradient is not finite: which step, which users, which parameter, in files of the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.errors import UserError
from unigrf_dist.objective.tasks import by_task
from unigrf_dist.train.build import Parts
from unigrf_dist.train.checkpoints.state import TrainState
from unigrf_dist.train.step import StepOutcome

FOLDER = "non_finite"
_ADVICE = (
    "lower the rates (deepspeed.optimizer.params.lr, tables.learning_rate), set deepspeed.gradient_clipping, or "
    "leave such steps out (--set train.on_non_finite=skip --allow-change train.on_non_finite)"
)


class NonFiniteError(UserError):
    """A step's losses or gradients are not finite, over all ranks together; every rank raises it."""


class NonFiniteWatch:
    """Looks at each step one step late, so that no step waits for the device, and before anything is saved.

    Args:
        run: the run's folder.
        parts: model and configuration.
        state: state of the run; its ``skipped`` is kept up to date.
        warn: told of a step that was left out.
    """

    def __init__(self, run: Path, parts: Parts, state: TrainState, *, warn: Callable[[str], None]) -> None:
        self._run, self._parts, self._state, self._warn = run, parts, state, warn
        self._unseen: _Seen | None = None

    def note(self, step: int, batch: JaggedBatch, outcome: StepOutcome) -> None:
        """Take in step ``step``, after looking at the one before.

        Raises:
            NonFiniteError: that one is not finite, and not allowed to be.
        """
        self.settle()
        self._state.skipped += outcome.skipped
        self._unseen = _Seen(step, batch, outcome)

    def settle(self) -> None:
        """Look at the last step; on every rank alike.

        Raises:
            NonFiniteError: it is not finite, and not allowed to be.
        """
        last, self._unseen = self._unseen, None
        if last is None or bool(last.outcome.finite()):
            return
        problem = _problem(last.outcome)
        self._report(last, problem)
        plan, where = self._parts.config.train, f"users and parameters: {self._run / FOLDER}"
        if not last.outcome.skipped:
            raise NonFiniteError(f"step {last.step}: not finite: {problem} ({where}); {_ADVICE}")
        if self._state.skipped > plan.max_skipped_steps:
            raise NonFiniteError(
                f"step {last.step}: not finite: {problem} ({where}); train.max_skipped_steps = "
                f"{plan.max_skipped_steps} steps were left out before; lower the rates "
                "(deepspeed.optimizer.params.lr, tables.learning_rate)"
            )
        self._warn(f"step {last.step} left out, not finite: {problem} ({where})")

    def _report(self, seen: _Seen, problem: str) -> None:
        """What is needed to find the cause, as ``step-N-rank-R.json``; each rank writes its own."""
        rank = self._parts.runtime.rank
        body: dict[str, Any] = {
            "step": seen.step,
            "rank": rank,
            "not_finite": problem,
            # Where this rank's own sums are finite, so are its users' losses.
            "arises_on_this_rank": not bool(torch.isfinite(seen.outcome.local_sums).all()),
            "users": seen.batch.user_ids.tolist(),
            "items": sorted(set(seen.batch.item_ids.tolist())),
            "parameters": [_described(*named) for named in self._parameters() if not _all_finite(named[2])],
        }
        file = self._run / FOLDER / f"step-{seen.step:08d}-rank-{rank:05d}.json"
        try:
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            self._warn(f"{file}: can't be written: {error.strerror}")

    def _parameters(self) -> Iterator[tuple[str, int, Tensor]]:
        """Name, first row and values of what this rank holds of the model, tables first."""
        for name, _, shard in self._parts.table.state_shards():
            yield f"tables/{name}", shard.row_offset, shard.values
        for name, parameter in self._parts.engine.module.named_parameters():
            yield name, 0, parameter.detach()


class _Seen(NamedTuple):
    """A step that has not been looked at."""

    step: int
    batch: JaggedBatch
    outcome: StepOutcome


def _problem(outcome: StepOutcome) -> str:
    """``loss_retrieval = nan, …``: what is not finite."""
    values = {**by_task("loss", outcome.losses.tolist()), **by_task("grad_norm", outcome.grad_norms.tolist())}
    return ", ".join(f"{name} = {value}" for name, value in values.items() if not _all_finite(torch.tensor(value)))


def _described(name: str, first_row: int, value: Tensor) -> dict[str, Any]:
    """A parameter's name, how much of it is not finite, and the first rows where that is so."""
    wrong = ~torch.isfinite(value)
    rows = wrong.flatten(1).any(dim=1) if wrong.ndim > 1 else wrong.flatten()
    first_rows = (rows.nonzero().flatten()[:10] + first_row).tolist()
    return {"name": name, "values": int(wrong.sum()), "first_rows": first_rows}


def _all_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())
