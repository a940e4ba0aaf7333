"""What a checkpoint holds, whole, for the comparison of two runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from unigrf_dist.train.checkpoints.blocks import read_json
from unigrf_dist.train.checkpoints.folders import LATEST, CheckpointFolders

Matrices = dict[str, NDArray[np.float64]]


def weights_at(run: Path, name: str = LATEST) -> Matrices:
    """Weights, moments and candidates of a run's checkpoint, by the name of the matrix.

    Args:
        run: the run's folder.
        name: ``latest``, ``best`` or a checkpoint's name.

    Raises:
        UserError: there is none.
    """
    place = CheckpointFolders(run).resolve(name)
    rows: dict[str, list[tuple[int, int, NDArray[np.float64]]]] = {}
    for file in read_json(place / "index.json")["files"]:
        values = load_file(place / file["file"])
        for block in file["blocks"]:
            value = np.asarray(values[block["key"]], dtype=np.float64)
            rows.setdefault(block["name"], []).append((block["first_row"], block["first_column"], value))
    return {name: _joined(blocks) for name, blocks in rows.items()}


def largest_difference(left: Matrices, right: Matrices) -> float:
    """Largest absolute difference of two runs' weights; infinite where they hold other matrices.

    Candidates and moments follow from the weights and are left out.
    """
    names = [name for name in left if name.endswith("/weight")]
    if set(left) != set(right):
        return float("inf")
    return max(float(np.abs(left[name] - right[name]).max()) for name in names)


def is_equal(left: Matrices, right: Matrices) -> bool:
    """Whether all matrices are equal in every bit."""
    return set(left) == set(right) and all(np.array_equal(left[name], right[name]) for name in left)


def _joined(blocks: list[tuple[int, int, NDArray[np.float64]]]) -> NDArray[np.float64]:
    if blocks[0][2].ndim == 1:
        return np.concatenate([value for _, _, value in sorted(blocks, key=lambda block: block[:2])])
    shape = [max(block[axis] + block[2].shape[axis] for block in blocks) for axis in (0, 1)]
    whole = np.full(shape, np.nan)
    for row, column, value in blocks:
        whole[row : row + value.shape[0], column : column + value.shape[1]] = value
    return whole
