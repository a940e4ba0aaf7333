"""From a study to its runs: every configuration is checked before the first one starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unigrf_dist.config import Config, load_config
from unigrf_dist.config.schema import DataConfig
from unigrf_dist.data import Dataset, configured_dataset
from unigrf_dist.errors import UserError
from unigrf_dist.study.metric_names import split_task
from unigrf_dist.study.schema import Study, Variant, as_words
from unigrf_dist.train.checks import refuse_unfit


@dataclass(frozen=True)
class Trial:
    """One run of a study.

    Attributes:
        variant: name of the variant in the study.
        seed: ``train.seed``.
        folder: folder of the run, as `unigrf train` writes it.
        base: configuration file that it starts from.
        overrides: ``key=value``, applied to the base in this order.
        config: resolved configuration.
    """

    variant: str
    seed: int
    folder: Path
    base: Path
    overrides: tuple[str, ...]
    config: Config

    @property
    def name(self) -> str:
        return f"{self.variant} seed {self.seed}"


def plan_trials(
    study: Study,
    path: Path,
    out: Path,
    *,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] = (),
    ranks: int = 1,
) -> list[Trial]:
    """All runs of the study, seed by seed, so that the first seed alone already compares all variants.

    Args:
        study: study to run.
        path: file of the study; the base lies relative to it.
        out: folder of the study.
        overrides: ``key=value`` for all variants, after the study's; a variant's own come after both.
        seeds: seeds instead of the study's; empty for the study's.
        ranks: processes of each run.

    Raises:
        UserError: a variant's configuration is wrong, or does not fit its data or the ranks; the message
            names the problems of all variants.
    """
    base = path.parent / study.base
    shared = [*as_words(study.overrides), *overrides]
    load_config(base, shared)  # what is wrong with all variants is told once
    trials: list[Trial] = []
    problems: dict[str, None] = {}
    for seed in seeds or study.seeds:
        for name, variant in study.runs().items():
            try:
                trials.append(_trial(name, variant, seed, base, out, shared))
            except UserError as error:
                problems[f"variant {name}: {str(error).removeprefix(f'{base}: ')}"] = None
    if not problems:  # with a variant missing, it is not known which tasks there are
        problems.update(dict.fromkeys(_absent_tasks(study, trials)))
    problems.update(dict.fromkeys(_misfits(trials, ranks)))
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}")
    return trials


def _trial(name: str, variant: Variant, seed: int, base: Path, out: Path, shared: Sequence[str]) -> Trial:
    words = (*shared, *as_words(variant.overrides), f"train.seed={seed}")
    return Trial(name, seed, out / "runs" / name / f"seed-{seed}", base, words, load_config(base, words))


def _misfits(trials: Sequence[Trial], ranks: int) -> list[str]:
    """Why `unigrf train` would refuse these runs, by variant."""
    datasets: dict[DataConfig, Dataset] = {}
    problems = []
    for trial in trials:
        try:
            data = trial.config.data
            if data not in datasets:
                datasets[data] = configured_dataset(data)
            refuse_unfit(trial.config, datasets[data], ranks)
        except UserError as error:
            problems.append(f"variant {trial.variant}: {error}")
    return problems


def _absent_tasks(study: Study, trials: Sequence[Trial]) -> list[str]:
    """Metrics of the study that are of a ranking task no variant has."""
    rules = list(dict.fromkeys(task.rule for trial in trials for task in trial.config.objective.ranking))
    return [
        f"metrics: {metric}: no variant has this ranking task; there are: {', '.join(rules)}"
        for metric in study.metrics
        if (rule := split_task(metric)[1]) is not None and rule not in rules
    ]
