"""Tensors of an export: safetensors files of bounded size with an index, tables as fp32 or int8.

Names: ``model.PARAMETER``, ``tables.NAME`` (and ``tables.NAME.scale`` where it is int8),
``item_features.NAME.values`` and ``.offsets``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unigrf_dist.errors import UserError

INDEX_FILE = "model.safetensors.index.json"
SHARD_BYTES = 4 << 30
_LEVELS = 127


def save_tensors(folder: Path, tensors: Mapping[str, Tensor], *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write ``model-00001-of-0000N.safetensors``, … and the index that says which tensor lies where.

    Args:
        folder: folder of the export.
        tensors: tensors by name.
        shard_bytes: most bytes of a file; a single tensor may exceed it.

    Raises:
        OSError: a file can't be written.
    """
    shards: list[dict[str, Tensor]] = [{}]
    room = shard_bytes
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        if shards[-1] and tensor.nbytes > room:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        try:
            save_file(shard, folder / file)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        weight_map |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    index_file = folder / INDEX_FILE
    index_file.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    for file in set(weight_map.values()):
        # safetensors lets nobody but the writer read its files.
        (folder / file).chmod(index_file.stat().st_mode & 0o777)


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """What ``save_tensors`` wrote.

    Raises:
        UserError: a file can't be read, or lacks a tensor of the index.
    """
    try:
        index: dict[str, str] = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))["weight_map"]
        found: dict[str, Tensor] = {}
        for file in sorted(set(index.values())):
            found |= load_file(folder / file)
        return {name: found[name] for name in index}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{folder}: its weights can't be read: {error}; make the export anew") from error


def quantized(table: Tensor) -> tuple[Tensor, Tensor]:
    """A table as int8, each row on a scale of its own.

    The scale is bf16: it has the range of fp32 at half the bytes, and its rounding moves a row's largest value by
    less than the half step that int8 costs anyway.

    Args:
        table: ``[rows, D]`` fp32.

    Returns:
        ``[rows, D]`` int8 and ``[rows]`` bf16, whose product is the table but for half a step.
    """
    scale = (table.abs().amax(1) / _LEVELS).bfloat16()
    steps = table / scale.float().clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    return steps.round().clamp(-_LEVELS, _LEVELS).to(torch.int8), scale


def dequantized(steps: Tensor, scale: Tensor) -> Tensor:
    """``[rows, D]`` fp32 from what ``quantized`` gave."""
    return steps.float() * scale.float()[:, None]
