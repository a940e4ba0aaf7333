"""What a table says about how the model itself was trained and asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unigrf_dist.config import Config


def of_model(config: Config) -> dict[str, Any]:
    """Entries of the protocol."""
    entries: dict[str, Any] = {
        "query_time_visible": config.model.query_time_visible,
        "trained_to": config.data.train_to,
    }
    if config.train.average is not None:
        entries["averaged"] = f"moving average of the weights, decay {config.train.average.decay}"
    if config.train.refit_of is not None:
        entries["refit_of"] = config.train.refit_of
    return entries


def model_sentences(protocol: Mapping[str, Any]) -> list[str]:
    """What of it a reader has to know beside every table; tables written before it was noted say nothing."""
    sentences = []
    if "query_time_visible" in protocol:
        visible = "visible" if protocol["query_time_visible"] else "not visible"
        sentences.append(f"time of the query {visible} to the model")
    if protocol.get("trained_to", "training") != "training":
        refit = f" (refit of {protocol['refit_of']})" if "refit_of" in protocol else ""
        sentences.append(
            f"model trained up to the {protocol['trained_to']} event{refit}, baselines and opponents on the "
            "training events alone"
        )
    sentences += [protocol["averaged"]] if "averaged" in protocol else []
    return sentences
