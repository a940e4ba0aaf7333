"""Model the shipped kernels that have a large product, in a type of 16 bits, several at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from unigrf_kernels.aot.run import discover_cases, select
from unigrf_kernels.aot.targets import TARGETS

from .chips import CHIPS
from .measure import KernelModel, model_digest, model_kernel, relabelled

# The widths of the published marks, and of the loss the widest; what else is shipped differs by branches that a
# tile rarely takes, or has the same tiles.
_MODELLED = re.compile(
    r"attention .+ bf16 D(64|128|256) (silu|silu biases|softmax grouped) \d+x\d+$"
    r"|joint loss (stream|negative gradient) bf16 D(64|128|256|512) normalised \d+x\d+$"
)


def select_models(archs: Sequence[str], *, only: str = "") -> list[tuple[int, str]]:
    """Number of a case in `discover_cases` and name of the chip, of all that is modelled.

    Args:
        archs: names of chips; those without issue rates are left out.
        only: only configurations whose label contains this.
    """
    cases = discover_cases()
    chips = [arch for arch in archs if arch in CHIPS]
    return [(number, arch) for number, arch in select(chips, only=only) if _MODELLED.match(cases[number].label)]


def model_all(
    selected: Sequence[tuple[int, str]], *, known: Mapping[str, KernelModel], processes: int = 2
) -> list[KernelModel]:
    """Models in the order of ``selected``; what is ``known`` is not compiled."""
    cases = discover_cases()
    digests = [model_digest(cases[number], TARGETS[arch]) for number, arch in selected]
    missing = [task for task, digest in zip(selected, digests, strict=True) if digest not in known]
    made: dict[str, KernelModel] = {}
    if len(missing) > 2:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            made = {model.digest: model for model in pool.map(_model, missing)}
    else:
        made = {model.digest: model for model in map(_model, missing)}
    everything = {**known, **made}
    numbers = (number for number, _ in selected)
    return [relabelled(everything[digest], cases[number]) for number, digest in zip(numbers, digests, strict=True)]


def _model(task: tuple[int, str]) -> KernelModel:
    number, arch = task
    return model_kernel(discover_cases()[number], TARGETS[arch])
