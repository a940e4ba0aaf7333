"""One generative recommender for retrieval and ranking, trained at scale (UniGRF, arXiv 2504.16454).

The names below are the public interface. Each is imported when it is first asked for, so that ``import
unigrf_dist`` and the command line start without torch, TorchRec and DeepSpeed. ``prepare_dataset`` and
``evaluate_model`` are not called after their packages: a function named ``prepare`` here and the package
``unigrf_dist.prepare`` would replace each other, whichever is imported last.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unigrf_dist.config import Config, load_config
    from unigrf_dist.data import Dataset, EvaluationStream, JaggedBatch, TrainStream, open_dataset
    from unigrf_dist.errors import UserError
    from unigrf_dist.evaluate.evaluator import evaluate as evaluate_model
    from unigrf_dist.model.unigrf import UniGRF
    from unigrf_dist.prepare import prepare as prepare_dataset
    from unigrf_dist.serve.export.read import from_pretrained
    from unigrf_dist.serve.recommender import Recommender
    from unigrf_dist.synthetic import synthesize

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Dataset",
    "EvaluationStream",
    "JaggedBatch",
    "Recommender",
    "TrainStream",
    "UniGRF",
    "UserError",
    "__version__",
    "evaluate_model",
    "from_pretrained",
    "load_config",
    "open_dataset",
    "prepare_dataset",
    "synthesize",
]

# Public name: the module that defines it, and what it is called there.
_HOMES = {
    "Config": ("unigrf_dist.config", "Config"),
    "Dataset": ("unigrf_dist.data", "Dataset"),
    "EvaluationStream": ("unigrf_dist.data", "EvaluationStream"),
    "JaggedBatch": ("unigrf_dist.data", "JaggedBatch"),
    "Recommender": ("unigrf_dist.serve.recommender", "Recommender"),
    "TrainStream": ("unigrf_dist.data", "TrainStream"),
    "UniGRF": ("unigrf_dist.model.unigrf", "UniGRF"),
    "UserError": ("unigrf_dist.errors", "UserError"),
    "evaluate_model": ("unigrf_dist.evaluate.evaluator", "evaluate"),
    "from_pretrained": ("unigrf_dist.serve.export.read", "from_pretrained"),
    "load_config": ("unigrf_dist.config", "load_config"),
    "open_dataset": ("unigrf_dist.data", "open_dataset"),
    "prepare_dataset": ("unigrf_dist.prepare", "prepare"),
    "synthesize": ("unigrf_dist.synthetic", "synthesize"),
}


def __getattr__(name: str) -> Any:
    """Import the public name ``name`` (PEP 562); Python asks here only while it is not yet defined."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, its_name = _HOMES[name]
    value = getattr(importlib.import_module(module), its_name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
