"""What is mutated, by which tests it is judged, and which survivors are no mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tools.mutants.by_hand import BY_HAND, Edit
from tools.mutants.operators import Mutant, find_mutants


class Target(NamedTuple):
    """Modules and their tests.

    Attributes:
        modules: glob below the root of the repository.
        tests: files and folders of tests; the quick ones first, as the first failure ends a mutant.
    """

    modules: str
    tests: tuple[str, ...]


_STEP_TESTS = tuple(
    f"tests/train/test_{name}.py"
    for name in (
        "step_by_definition",
        "step_on_ranks",
        "table_rate",
        "dropout_seeds",
        "engine",
        "matmul_precision",
    )
)


def _of(package: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/{package}/test_{name}.py" for name in names)


def _evaluate(*names: str) -> tuple[str, ...]:
    return _of("evaluate", *names)


_BLOCKS = _of("model", "flops", "backbone", "initial_values", "operators", "unigrf", "dropout", "causality")


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
    Target("unigrf_dist/model/id_map.py", _of("model", "id_map")),
    Target("unigrf_dist/model/live_items.py", _of("train", "dynamic_ids")),
    Target("unigrf_dist/model/initial_vectors.py", (*_of("model", "table_parts"), *_of("train", "dynamic_ids"))),
    Target("unigrf_dist/model/tables.py", _of("model", "table_parts", "table_ranks")),
    Target("unigrf_dist/model/backbone.py", _of("model", "backbone", "flops", "unigrf")),
    Target("unigrf_dist/model/flops.py", _of("model", "flops")),
    Target(
        "unigrf_dist/model/unigrf.py",
        _of("model", "initial_values", "operators", "unigrf", "dropout", "causality", "batch_independence"),
    ),
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
    Target("unigrf_dist/evaluate/live_catalogue.py", _evaluate("live_catalogue")),
    Target("unigrf_dist/evaluate/catalogue.py", _evaluate("catalogue", "catalogue_ranks")),
    Target("unigrf_dist/evaluate/training_statistics.py", _evaluate("training_statistics")),
    Target("unigrf_dist/evaluate/engine_scorer.py", _evaluate("engine_scorer")),
    Target("unigrf_dist/evaluate/evaluator.py", _evaluate("evaluator")),
    Target("unigrf_dist/evaluate/verdict.py", _evaluate("verdict")),
    Target("unigrf_dist/evaluate/opponents/*.py", ("tests/evaluate/opponents",)),
    Target("unigrf_dist/evaluate/*.py", _evaluate("metrics_file")),
)

# Name of a survivor: why no test can tell it from the code.
_ENHANCER = "unigrf_dist/objective/enhancer/"
_START = "unigrf_dist/objective/weighter.py::AdaptiveWeighter.__init__: "
_GRADIENT = "unigrf_dist/objective/weighter.py::GradientWeighter._proportions: "
_DESCENT = "unigrf_dist/objective/weighter.py::DescentRateWeighter._proportions: "
_MEAN = "unigrf_dist/objective/smoothing.py::SmoothedMean.mean: "
_WINDOW = "unigrf_dist/objective/smoothing.py::WindowMeans."
_METRICS = "unigrf_dist/evaluate/metrics.py::"
_TOP_K = "unigrf_dist/evaluate/top_k.py::"
_FIXED = "unigrf_dist/evaluate/fixed_point.py::"
_CATALOGUE = "unigrf_dist/evaluate/catalogue.py::ShardedCatalogue."
_SHARDED = "unigrf_dist/evaluate/sharded_scores.py::ShardedScores."
_STATISTICS = "unigrf_dist/evaluate/training_statistics.py::"
_SIDE = "unigrf_dist/model/side_features.py::"
_SEEN = "unigrf_dist/objective/seen.py::seen_items: "
_STEP = "unigrf_dist/train/step.py::"
_JSON_FILE = "unigrf_dist/evaluate/metrics_file.py::"
_PLANTED = "unigrf_dist/evaluate/planted.py::read_planted_optimum: "
_UTF_8 = "the encoding of this machine, too"
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
    _ENHANCER
    + "targets.py::_standardised: valid.sum(1, keepdim=True).clamp_min(1) -> (valid.sum(1, keepdim=True))": (
        "of a row without candidates nothing is selected, whatever its differences are"
    ),
    _ENHANCER + "targets.py::_standardised: 1 -> (0) #2": "as above",
    _ENHANCER + "targets.py::_standardised: 1 -> (2) #2": "of one candidate alone there is nothing to choose",
    _ENHANCER + "store.py::CandidateStore.read: torch.isin(users, self._pending.users) -> "
    "(torch.isin(self._pending.users, users))": "whether two sets meet",
    _ENHANCER + "store.py::CandidateStore.fill: 0 -> (1)": "arbitrary candidates",
    _ENHANCER + "store.py::CandidateStore.fill: 0 -> (-1)": "arbitrary candidates",
    _CATALOGUE + "__init__: 64 -> (63)": "the memory of a chunk changes no rank",
    _CATALOGUE + "__init__: 64 -> (65)": "the memory of a chunk changes no rank",
    _CATALOGUE + "target_ranks: int(targets.max()) -> (targets.max())": "compared alike",
    _CATALOGUE + "target_ranks: int(targets.min()) -> (targets.min())": "compared alike",
    _CATALOGUE + "target_ranks: 0 -> (-1) #2": "the only column",
    "unigrf_dist/evaluate/catalogue.py::_HiddenItems.hide: torch.searchsorted(self._items, edges).tolist() -> "
    "(torch.searchsorted(self._items, edges))": "tensors of one number are bounds, too",
    _SHARDED + "_refuse_non_finite: int(not part.weight.abs().amax().isfinite()) -> "
    "(not part.weight.abs().amax().isfinite())": "True counts 1",
    _SHARDED + "_refuse_non_finite: int(self._ranks.sum(torch.tensor(bad, device=device))) -> "
    "(self._ranks.sum(torch.tensor(bad, device=device)))": "true if it is not 0, either way",
    _SIDE + "SideFeatures.lookup: 0 -> (-1)": "what stands for no item may get anything",
    _SIDE + "_ItemFeature.__init__: 1 -> (2)": "a second spare code is 0 like the first",
    _SIDE + "_ItemFeature.__init__: 1 -> (2) #2": "not read where every item has one code",
    _SIDE + "_ItemFeature.codes: (index < counts).float() -> (index < counts)": "divided, both are fp32",
    "unigrf_dist/model/flops.py::attention_flops: float((tokens**2).sum()) -> ((tokens ** 2).sum())": (
        "numpy's float64 is a float"
    ),
    _JSON_FILE + "write_metrics: 1 -> (0)": "white space of a JSON file",
    _JSON_FILE + "write_metrics: 1 -> (2)": "white space of a JSON file",
    _JSON_FILE + 'read_metrics: file.read_text(encoding="utf-8") -> (file.read_text())': _UTF_8,
    _JSON_FILE + "read_metrics: dict(stored[\"splits\"]) -> (stored['splits'])": "it is one already",
    _PLANTED + 'file.read_text(encoding="utf-8") -> (file.read_text())': _UTF_8,
    _PLANTED + "dict(optimum[\"ranking\"]) -> (optimum['ranking'])": "it is one already",
    "unigrf_dist/model/tables.py::_joined: len(parts) -> (parts)": "of one part, a copy",
    "unigrf_dist/objective/exact_norms.py::ExactNorms.__init__: list(parameters) -> (parameters)": (
        "it is a sequence already, which nobody changes"
    ),
    _SEEN + "batch.prior_item_ids is not None and batch.prior_offsets is not None -> "
    "(batch.prior_item_ids is not None or batch.prior_offsets is not None)": "one is there if the other is",
    _SEEN + "users.repeat_interleave(batch.prior_offsets.diff(), output_size=batch.prior_item_ids.numel()) -> "
    "(users.repeat_interleave(batch.prior_offsets.diff()))": "the size spares CUDA a wait",
    _SEEN + "0 -> (-1)": "before the only one of a list is before its last",
    _STEP + "<module>: 4096 -> (4095)": "more than a step has masks, too",
    _SIDE + "FeatureLookup._mean: 0 -> (-1)": "the only column",
    "unigrf_dist/model/cpu_adam.py::_LookupWithUpdate.backward: 0 -> (-1)": "there is one output",
    "unigrf_dist/model/tables.py::_joined: 0 -> (-1)": "of one part",
    "unigrf_dist/objective/negatives.py::NegativeSource._log_q.log_q: 1 -> (2)": (
        "an item of every event is expected once, with or without the bound"
    ),
    "unigrf_dist/evaluate/bootstrap.py::Bootstrap._resamples: max(num_users, 1) -> (num_users)": (
        "where there are no users, nothing is resampled"
    ),
    'unigrf_dist/evaluate/table.py::result_table: table.add_column(f"{level:.0%} interval", justify="right", '
    "style=\"dim\", no_wrap=True) -> (table.add_column(f'{level:.0%} interval', justify='right', no_wrap=True))": (
        "a colour"
    ),
    _METRICS + "_bin_of: torch.zeros(0, dtype=torch.int64) -> (torch.zeros(0))": "bins of nobody",
    _STATISTICS + "<module>: 40 -> (41)": "longer than any sequence, too",
    _STATISTICS + "<module>: 40 -> (39)": "longer than any sequence, too",
    _STATISTICS + "previous_labels: 1 -> (0)": "then the first event's label is missing, which says the same",
    "unigrf_dist/objective/negatives.py::NegativeSource._samples: torch.randint(size, (count,), "
    "generator=generator).to(self.device) -> (torch.randint(size, (count,), generator=generator))": (
        "drawn on the CPU, where they stay without a GPU"
    ),
    "unigrf_dist/objective/negatives.py::NegativeSource._log_q.log_q: 1 - 1e-12 -> (1 + 1e-12)": (
        "an item of every event is expected once, with or without the bound"
    ),
    "unigrf_dist/model/cpu_adam.py::CpuAdamTable.get_optimizer_state: 0 -> (-1)": "Adagrad has one moment",
    "unigrf_dist/model/tables.py::_joined: 1 -> (0)": "of one part, a copy",
    _STATISTICS + "previous_labels: 0 -> (-1) #2": "what follows makes nothing of nothing",
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
