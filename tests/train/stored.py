"""Reads what a checkpoint holds with json and safetensors alone: no code of the checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def latest(run: Path) -> Path:
    return run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()


def stored_state(checkpoint: Path) -> dict[str, Any]:
    """Where the run stood; the first line of the file is the SHA-256 of the rest."""
    return json.loads((checkpoint / "state.json").read_text().partition("\n")[2])["train"]


def stored_values(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every matrix of a checkpoint, whole, in float64, by its name."""
    index = json.loads((checkpoint / "index.json").read_text().partition("\n")[2])
    parts: dict[str, list[tuple[int, int, torch.Tensor]]] = {}
    for file in index["files"]:
        values = load_file(checkpoint / file["file"])
        for block in file["blocks"]:
            value = values[block["key"]].double()
            if value.ndim == 1:
                value = value[:, None].expand(-1, block["num_columns"])
            parts.setdefault(block["name"], []).append((block["first_row"], block["first_column"], value))
    whole = {}
    for name, blocks in parts.items():
        rows = max(row + len(value) for row, _, value in blocks)
        columns = max(column + value.shape[1] for _, column, value in blocks)
        matrix = torch.full((rows, columns), float("nan"), dtype=torch.float64)
        for row, column, value in blocks:
            matrix[row : row + len(value), column : column + value.shape[1]] = value
        assert not matrix.isnan().any(), name
        whole[name] = matrix
    return whole
