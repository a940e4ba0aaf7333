"""Sums over users in place of their rows: memory that does not grow with their number.

Everything that is summed is an integer, so that the sums are the same in any order and on any number of ranks.
Ranks are counted one by one, which keeps retrieval exact. Logits fall into fine bins, among which the AUC is known
up to half of the (positive, negative) pairs that share one; losses and probabilities are rounded to multiples of
2^-24.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unigrf_dist.data import EvaluationBatch
from unigrf_dist.evaluate.bootstrap import Bootstrap
from unigrf_dist.evaluate.metric import CalibrationBin, Metric, MetricTable
from unigrf_dist.evaluate.metrics import HIT_RATE_AT, NDCG_AT, NOT_FOUND, RANKING_METRICS
from unigrf_dist.evaluate.scorer import UserScores, held_out_behaviours, is_retrieval_user, target_labels
from unigrf_dist.ranks.collective import Collective

MOST_ROWS = 1_000_000
"""With more users than that their sums are kept, and not a row of each."""
STREAMED_WORDS = f"sums and no rows of more than {MOST_ROWS:,} users: AUC from fine bins, no intervals"

# Of a float's 32 bits: sign, exponent and 9 bits of the fraction, so that a bin is 0.2 % wide at most.
_BIN_BITS = 18
_NUM_BINS = 1 << _BIN_BITS
_SCALE = float(1 << 24)
_CALIBRATION_BINS = 10


class UserSums:
    """Sums of each scorer, collected batch by batch.

    Args:
        names: names of the scorers.
        task_labels: ``[num_behaviours, A]`` label of every behaviour code, NaN where it has none.
        is_target: ``[num_behaviours]`` bool, whether retrieval is measured on held-out events of each code.
    """

    def __init__(self, names: list[str], task_labels: Tensor, is_target: Tensor) -> None:
        self._task_labels, self._is_target = task_labels, is_target
        self._ranks: dict[str, dict[str, RankCounts]] = {
            name: {group: RankCounts() for group in ("all", "new", "repeated")} for name in names
        }
        self._logits = {name: [LogitBins() for _ in range(task_labels.shape[1])] for name in names}
        self._gives: dict[str, tuple[bool, bool]] = {}
        self._num_users, self._last_user, self.num_removed = 0, -1, 0

    def add(self, batch: EvaluationBatch, scores: dict[str, UserScores]) -> None:
        """Take in the users of a batch, with what each scorer gave them."""
        self._count(batch.batch.user_ids)
        found, repeats = is_retrieval_user(batch, self._is_target), batch.target_repeats
        removed = self._is_target[held_out_behaviours(batch.batch)] & batch.target_removed
        self.num_removed += int(removed.sum())
        labels = target_labels(batch.batch, self._task_labels)
        members = {"all": found, "new": found & ~repeats, "repeated": found & repeats}
        for name, of_scorer in scores.items():
            self._gives[name] = (of_scorer.ranks is not None, of_scorer.logits is not None)
            if of_scorer.ranks is not None:
                for group, those in members.items():
                    self._ranks[name][group].add(of_scorer.ranks[those])
            if of_scorer.logits is not None:
                for task, bins in enumerate(self._logits[name]):
                    bins.add(of_scorer.logits[:, task], labels[:, task])

    def metric_tables(
        self, task_names: list[str], expected: int, _: Bootstrap, *, told_apart: bool
    ) -> dict[str, MetricTable]:
        """Metrics over the users of all ranks; collective. As ``UserRows.metric_tables``, without intervals."""
        ranks = Collective()
        num_users, self.num_removed = ranks.sum(torch.tensor([self._num_users, self.num_removed])).tolist()
        if num_users != expected:
            raise RuntimeError(f"evaluated {num_users} users, but {expected} have a held-out event")
        tables = {}
        for name, (retrieves, predicts) in self._gives.items():
            groups = {g: counts.metrics(ranks) for g, counts in self._ranks[name].items()} if retrieves else {}
            of_tasks = [bins.summed(ranks) for bins in self._logits[name]] if predicts else []
            of_task = dict(zip(task_names, of_tasks, strict=False))
            tables[name] = MetricTable(
                groups.get("all", {}),
                {task: bins.metrics() for task, bins in of_task.items()},
                {task: bins.calibration_bins() for task, bins in of_task.items()},
                {group: groups[group] for group in ("new", "repeated") if told_apart and retrieves},
            )
        return tables

    def _count(self, user_ids: Tensor) -> None:
        # A rank's users come in the order of their ids: who comes twice comes out of order.
        ordered = torch.cat([torch.tensor([self._last_user]), user_ids])
        if bool((ordered.diff() <= 0).any()):
            raise RuntimeError("a user was evaluated twice")
        self._num_users, self._last_user = self._num_users + len(user_ids), int(ordered[-1])


class RankCounts:
    """How many users have each rank; grows with the largest rank, which the catalogue bounds."""

    def __init__(self) -> None:
        # Place 0 counts targets that are no candidates.
        self.counts = torch.zeros(1, dtype=torch.int64)

    def add(self, ranks: Tensor) -> None:
        found = torch.bincount(ranks.masked_fill(ranks == NOT_FOUND, 0), minlength=len(self.counts))
        self.counts = found + F.pad(self.counts, (0, len(found) - len(self.counts)))

    def metrics(self, group: Collective) -> dict[str, Metric]:
        """As ``retrieval_metrics`` over the users of all ranks; collective."""
        length = int(group.maximum(torch.tensor(len(self.counts))))
        counts = group.sum(F.pad(self.counts, (0, length - len(self.counts)))).double()
        users, of_rank, rank = counts.sum(), counts[1:], torch.arange(1, length, dtype=torch.float64)
        gain = of_rank / (rank + 1).log2()
        sums = {f"hr@{k}": of_rank[:k].sum() for k in HIT_RATE_AT}
        sums |= {f"ndcg@{k}": gain[:k].sum() for k in NDCG_AT}
        sums["mrr"] = (of_rank / rank).sum()
        if not users:
            return {name: Metric(None, reason="no users") for name in sums}
        return {name: Metric(float(value / users)) for name, value in sums.items()}


@dataclass
class LogitBins:
    """Predictions by fine bins of their logit, which ascend.

    Attributes:
        sums: ``[3, bins]`` int64: negatives, positives, and probabilities in units of 2^-24.
        loss: ``[]`` int64, log losses in these units.
        not_finite: ``[]`` int64, predictions that are not finite.
    """

    sums: Tensor
    loss: Tensor
    not_finite: Tensor

    def __init__(self) -> None:
        self.sums = torch.zeros(3, _NUM_BINS, dtype=torch.int64)
        self.loss, self.not_finite = torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.int64)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Take in predictions ``[n]``; without a label (NaN) they count for nothing."""
        logits, labels = logits[~labels.isnan()].double(), labels[~labels.isnan()].double()
        self.not_finite += (~logits.isfinite()).sum()
        labels, logits = labels[logits.isfinite()], logits[logits.isfinite()]
        bins, positive = _bin_of(logits), labels == 1
        probability = (logits.sigmoid() * _SCALE).round().long()
        for row, values in enumerate((~positive, positive, probability)):
            self.sums[row].index_add_(0, bins, values.long())
        self.loss += ((F.softplus(logits) - labels * logits) * _SCALE).round().long().sum()

    def summed(self, group: Collective) -> LogitBins:
        """Over all ranks; collective."""
        for total in (self.sums, self.loss, self.not_finite):
            group.sum(total)
        return self

    def metrics(self) -> dict[str, Metric]:
        """As ``ranking_metrics``, the AUC with a note of how far it may be from the exact one."""
        negatives, positives, probability = self.sums.double()
        num_negatives, num_positives = negatives.sum(), positives.sum()
        number = num_negatives + num_positives
        if not_finite := int(self.not_finite):
            reason = f"{not_finite:,} of {int(number) + not_finite:,} predictions are not finite"
            return {name: Metric(None, reason=reason, of_model=True) for name in RANKING_METRICS}
        if not number:
            return {name: Metric(None, reason="no labels") for name in RANKING_METRICS}
        gaps = [(probability[b] / _SCALE - positives[b]).sum().abs() for b in self._groups()]
        values = {
            "auc": self._auc(),
            "log_loss": Metric(float(self.loss.double() / _SCALE / number)),
            "calibration": Metric(None, reason="no label is positive"),
            "ece": Metric(float(sum(gaps) / number)),
        }
        if num_positives:
            values["calibration"] = Metric(float(probability.sum() / _SCALE / num_positives))
        return {name: values[name] for name in RANKING_METRICS}

    def calibration_bins(self) -> list[CalibrationBin]:
        """As ``metrics.calibration_bins``, with bounds as fine as the fine bins."""
        if int(self.not_finite):
            return []
        negatives, positives, probability = self.sums.double()
        found = []
        for members in self._groups():
            count = (negatives + positives)[members]
            means = probability[members] / _SCALE / count
            number = count.sum()
            found.append(
                CalibrationBin(
                    float(means[0]),
                    float(means[-1]),
                    float(probability[members].sum() / _SCALE / number),
                    float(positives[members].sum() / number),
                    int(number),
                )
            )
        return found

    def _auc(self) -> Metric:
        negatives, positives = self.sums[:2].double()
        pairs = negatives.sum() * positives.sum()
        if not pairs:
            kind = "negative" if negatives.sum() else "positive"
            return Metric(None, reason=f"all {int(self.sums[:2].sum())} labels are {kind}")
        below = negatives.cumsum(0) - negatives / 2
        bound = float((negatives * positives).sum() / pairs / 2)
        return Metric(float((positives * below).sum() / pairs), note=f"within {bound:.1e} of the exact value")

    def _groups(self) -> list[Tensor]:
        """Fine bins that are not empty, in up to ten groups of about equal counts."""
        counts = self.sums[:2].sum(0)
        used = counts.nonzero()[:, 0]
        if not len(used):
            return []
        ends = counts[used].cumsum(0)
        cuts = torch.arange(1, _CALIBRATION_BINS) * int(ends[-1]) // _CALIBRATION_BINS
        first = torch.searchsorted(ends, cuts, right=True)
        group = torch.bucketize(torch.arange(len(used)), first, right=True)
        return [used[group == number] for number in group.unique()]


def _bin_of(logits: Tensor) -> Tensor:
    """Order-preserving: the leading bits of the float, of negative numbers turned around."""
    bits = (logits.float() + 0.0).view(torch.int32).long()
    ordered = torch.where(bits < 0, -(bits & 0x7FFFFFFF) - 1, bits)
    return (ordered >> (32 - _BIN_BITS)) + _NUM_BINS // 2
