"""What is mutated, by which tests it is judged, and which survivors are no mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tools.mutants.operators import Mutant, find_mutants


class Target(NamedTuple):
    """Modules and their tests.

    Attributes:
        modules: glob below the root of the repository.
        tests: files and folders of tests; the quick ones first, as the first failure ends a mutant.
    """

    modules: str
    tests: tuple[str, ...]


class Edit(NamedTuple):
    """A mistake thought out by hand, which no operator makes.

    Attributes:
        path: file below the root of the repository.
        before: text that the file holds exactly once.
        after: text in its place.
    """

    path: str
    before: str
    after: str


_STEP_TESTS = tuple(
    f"tests/train/test_{name}.py"
    for name in (
        "step_by_definition",
        "table_rate",
        "dropout_seeds",
        "engine",
        "matmul_precision",
        "parity",
        "checkpoint",
    )
)


def _of(package: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/{package}/test_{name}.py" for name in names)


def _evaluate(*names: str) -> tuple[str, ...]:
    return _of("evaluate", *names)


_BLOCKS = _of("model", "flops", "initial_values", "unigrf", "dropout", "causality")


# The first target that fits a module is its own.
TARGETS = (
    Target("unigrf_dist/objective/weighter.py", ("tests/objective/test_weighter.py",)),
    Target(
        "unigrf_dist/objective/smoothing.py",
        ("tests/objective/test_smoothing.py", "tests/objective/test_weighter.py"),
    ),
    Target("unigrf_dist/objective/enhancer/store.py", _of("objective/enhancer", "store")),
    Target(
        "unigrf_dist/objective/enhancer/*.py",
        ("tests/objective/enhancer", *_of("model", "unigrf", "batch_independence")),
    ),
    Target(
        "unigrf_dist/objective/negatives.py",
        ("tests/objective/test_negative_draws.py", "tests/objective/test_negatives.py"),
    ),
    Target("unigrf_dist/objective/pairs.py", ("tests/objective/test_pairs.py",)),
    Target(
        "unigrf_dist/objective/negative_mask.py",
        ("tests/objective/test_mask_bits.py", "tests/objective/test_negative_mask.py"),
    ),
    Target("unigrf_dist/objective/exact_norms.py", _of("objective", "exact_norms")),
    Target("unigrf_dist/objective/seen.py", _of("objective", "mask_bits", "negative_mask")),
    Target("unigrf_dist/objective/tasks.py", _of("objective", "tasks")),
    Target("unigrf_dist/objective/*.py", ("tests/objective",)),
    Target("unigrf_dist/model/tokens.py", ("tests/model/test_token_rows.py", "tests/model/test_tokens.py")),
    Target("unigrf_dist/model/side_features.py", _of("model", "side_features")),
    Target("unigrf_dist/model/cpu_adam.py", _of("model", "cpu_adam")),
    Target("unigrf_dist/model/tables.py", _of("model", "table_parts", "table_ranks")),
    Target("unigrf_dist/model/backbone.py", _of("model", "backbone", "flops", "unigrf")),
    Target("unigrf_dist/model/flops.py", _of("model", "flops")),
    Target("unigrf_dist/model/unigrf.py", (*_of("model", "initial_values", "unigrf"), "tests/model")),
    Target("unigrf_dist/model/*.py", _BLOCKS),
    Target("unigrf_dist/train/step.py", _STEP_TESTS),
    Target("unigrf_dist/train/selection.py", ("tests/train/test_selection.py",)),
    Target("unigrf_dist/evaluate/baselines.py", _evaluate("shared_order", "baselines")),
    Target("unigrf_dist/evaluate/scorer.py", _evaluate("scorer")),
    Target("unigrf_dist/evaluate/bootstrap.py", _evaluate("resamples", "bootstrap")),
    Target("unigrf_dist/evaluate/fixed_point.py", _evaluate("exact_norms", "fixed_point")),
    Target("unigrf_dist/evaluate/metric_names.py", _evaluate("metric_name_parts", "metric_names")),
    Target(
        "unigrf_dist/evaluate/metrics.py", _evaluate("calibration", "plain_values", "metrics", "metric_directions")
    ),
    Target("unigrf_dist/evaluate/table.py", _evaluate("table")),
    Target("unigrf_dist/evaluate/top_k.py", _evaluate("short_lists", "top_k", "catalogue")),
    Target("unigrf_dist/evaluate/sharded_scores.py", _evaluate("sharded_scores", "catalogue", "catalogue_ranks")),
    Target("unigrf_dist/evaluate/catalogue.py", _evaluate("catalogue", "catalogue_ranks")),
    Target("unigrf_dist/evaluate/training_statistics.py", _evaluate("training_statistics")),
    Target("unigrf_dist/evaluate/engine_scorer.py", _evaluate("engine_scorer")),
    Target("unigrf_dist/evaluate/evaluator.py", _evaluate("evaluator")),
    Target("unigrf_dist/evaluate/*.py", _evaluate("metrics_file")),
)

BY_HAND = (
    # A task that is observed but worthless must not be confused with one that was not observed.
    Edit(
        "unigrf_dist/objective/weighter.py",
        "torch.isfinite(losses) & torch.isfinite(grad_norms)",
        "torch.isfinite(losses)",
    ),
    # The second weight is bounded by the first.
    Edit(
        "unigrf_dist/objective/weighter.py",
        "torch.cat([first, NUM_TASKS - first])",
        "torch.cat([first, mixed[1:]])",
    ),
    # Warm-up counts from the first step.
    Edit("unigrf_dist/objective/weighter.py", "self._steps <= self.config", "self._steps < self.config"),
    # The bias of a mean's start.
    Edit("unigrf_dist/objective/smoothing.py", "self._sum / self._weight.clamp_min(1e-12)", "self._sum"),
)

# Name of a survivor: why no test can tell it from the code.
_START = "unigrf_dist/objective/weighter.py::AdaptiveWeighter.__init__: "
_GRADIENT = "unigrf_dist/objective/weighter.py::GradientWeighter._proportions: "
_DESCENT = "unigrf_dist/objective/weighter.py::DescentRateWeighter._proportions: "
_MEAN = "unigrf_dist/objective/smoothing.py::SmoothedMean.mean: "
_WINDOW = "unigrf_dist/objective/smoothing.py::WindowMeans."
_METRICS = "unigrf_dist/evaluate/metrics.py::"
_TOP_K = "unigrf_dist/evaluate/top_k.py::"
_FIXED = "unigrf_dist/evaluate/fixed_point.py::"
_LAST = "the last dimension is the usual one"
_DIVIDED = "the floor only keeps 0 / 0 from a value that `where` then leaves out"
EQUIVALENT: dict[str, str] = {
    _MEAN + "self._weight.clamp_min(1e-12) -> (self._weight)": _DIVIDED,
    _WINDOW + "add: self._count.clamp_min(1.0) -> (self._count)": _DIVIDED,
    _WINDOW + "load_state_dict: int(state[\"step\"][0]) -> (state['step'][0])": "JSON gives the whole number back",
    _WINDOW + "load_state_dict: 0 -> (-1)": "the list has one element",
    _TOP_K + "merge_top_k: flat_ids.sort(dim=1, stable=True) -> (flat_ids.sort(stable=True))": _LAST,
    _TOP_K + "_best: scores.topk(k, dim=1) -> (scores.topk(k))": _LAST,
    _TOP_K + "_best: 0 -> (-1)": "what follows makes no rows of no rows, too",
    _FIXED + "to_fixed_point: vectors.double() -> (vectors)": "float32 over float64 is float64",
    _FIXED + "exact_norms: 65536 -> (65537)": "the size of a block changes no bit",
    _FIXED + "exact_norms: 1 -> (2)": "a width of 1 or 2 gets all bits either way",
    _FIXED + "_by_blocks: 1 -> (2)": "a block behind the last row is empty",
    "unigrf_dist/objective/pairs.py::next_item_pairs: 0 -> (-1)": "without events there is nothing to clamp",
    "unigrf_dist/objective/negative_mask.py::_word_and_bit: 1 -> (2) #2": "any column below 0 means none",
    "unigrf_dist/evaluate/scorer.py::ModelScorer.score_users: bool(scores.valid.all()) -> (scores.valid.all())": (
        "`not` makes the same of it"
    ),
    "unigrf_dist/evaluate/bootstrap.py::Bootstrap.metrics: 0 -> (-1)": "the only row of counts",
    _METRICS + "auc_statistic: 0 -> (-1)": "the first dimension of a vector is its last",
    _METRICS + "ranking_metrics: True -> (False)": "equal logits are counted together, in any order",
    _START + "self.prior.clone() -> (self.prior)": "weights are replaced, never changed in place",
    _GRADIENT + "1.0 -> (2.0)": "stands where a task has not started, and then the prior is returned",
    _GRADIENT + "rate / rate.mean() -> (rate * rate.mean())": "a factor of both tasks, divided out later",
    _GRADIENT + "rate.mean() -> (rate.sum())": "a factor of both tasks, divided out later",
    _DESCENT + "0 -> (-1)": "the first dimension of a vector is its last",
}


def modules(root: Path, only: str = "") -> dict[str, tuple[str, ...]]:
    """Modules to mutate whose path begins with ``only``, and the tests of each."""
    found: dict[str, tuple[str, ...]] = {}
    for target in TARGETS:
        for file in sorted(root.glob(target.modules)):
            path = file.relative_to(root).as_posix()
            if path.startswith(only):
                found.setdefault(path, target.tests)
    return found


def mutants_of(root: Path, path: str) -> list[Mutant]:
    """The mutants of a module: those of the operators, then those made by hand.

    Raises:
        ValueError: the text of an edit is not in its file exactly once.
    """
    source = (root / path).read_text(encoding="utf-8")
    return find_mutants(source, path) + [_by_hand(edit, source) for edit in BY_HAND if edit.path == path]


def _by_hand(edit: Edit, source: str) -> Mutant:
    text, before = source.encode(), edit.before.encode()
    if text.count(before) != 1:
        raise ValueError(f"{edit.path} has {edit.before!r} {text.count(before)} times: bring BY_HAND up to date")
    start = text.index(before)
    line = text[:start].count(b"\n") + 1
    return Mutant(edit.path, "", "by hand", line, start, start + len(before), edit.before, edit.after, 0)
