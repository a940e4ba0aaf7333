"""Which implementation of the operators a model asks for."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from tests.model.small_model import model_config, small_model
from unigrf_dist.model import hstu, llama, padded_tokens, unigrf

OF_ALL = {"seeded_dropout", "jagged_attention", "joint_loss"}
OWN = {
    "hstu": OF_ALL | {"norm_project_silu", "gated_norm_dropout"},
    "llama": OF_ALL | {"rms_norm", "rotary", "swiglu"},
}


@pytest.mark.parametrize("kernel", ["auto", "triton", "torch"])
@pytest.mark.parametrize("backbone", OWN)
def test_every_operator_is_asked_for_as_configured(
    backbone: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, set[str | None]] = defaultdict(set)

    def recorded(name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            asked[name].add(kwargs.get("implementation"))
            return function(*args, **{**kwargs, "implementation": "torch"})

        return call

    for module in (unigrf, hstu, llama, padded_tokens):
        for name, value in list(vars(module).items()):
            if getattr(value, "__module__", "").startswith("unigrf_kernels"):
                monkeypatch.setattr(module, name, recorded(name, value))
    small_model(model_config(model__backbone=backbone, model__dropout=0.25, kernel=kernel)).forward(1)
    assert asked == {name: {kernel} for name in OWN[backbone]}
