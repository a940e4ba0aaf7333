"""The contract of ``jagged_attention``: each rule once, with the message a caller gets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TRITON_DTYPES, TRITON_MAX_HEAD_DIM = (torch.float32, torch.bfloat16, torch.float16), 256
ACTIVATIONS = ("silu", "softmax")


def check_structure(
    offsets: Tensor,
    num_candidates: Tensor | None,
    window: int | None,
    query_times: Tensor | None,
    key_times: Tensor | None,
    max_length: int | None,
    query_offsets: Tensor | None,
) -> None:
    """Rules on what describes the sequences.

    Values are read only on the CPU: on a device that would wait for it.
    """
    _check_vector("offsets", offsets, None, "B + 1", offsets.device)
    if offsets.numel() == 0:
        raise ValueError("offsets must have shape [B + 1], got [0]")
    num_sequences = offsets.numel() - 1
    if num_candidates is not None:
        _check_vector("num_candidates", num_candidates, num_sequences, "B", offsets.device)
    if (query_times is None) != (key_times is None):
        missing = "query_times" if query_times is None else "key_times"
        raise ValueError(f"query_times and key_times must be given together, {missing} is missing")
    if query_times is not None and key_times is not None:
        _check_vector("query_times", query_times, None, "T" if query_offsets is None else "Tq", offsets.device)
        num_keys = query_times.numel() if query_offsets is None else None
        _check_vector("key_times", key_times, num_keys, "T", offsets.device)
    if query_offsets is not None:
        _check_vector("query_offsets", query_offsets, offsets.numel(), "B + 1", offsets.device)
    if window is not None and not isinstance(window, (int, torch.SymInt)):
        raise TypeError(f"window must be an integer, got {type(window).__name__}")
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    if max_length is not None and max_length < 0:
        raise ValueError(f"max_length must not be negative, got {max_length}")
    if _values_are_at_hand(offsets):
        _check_values(offsets, num_candidates, query_times, key_times, max_length, query_offsets)


def check_operands(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    query_times: Tensor | None,
    key_times: Tensor | None,
    query_offsets: Tensor | None,
) -> None:
    """Rules on queries, keys and values."""
    symbol = "T" if query_offsets is None else "Tq"
    if q.dim() != 3:
        raise ValueError(f"q must have shape [{symbol}, H, D], got {_shape(q)}")
    num_queries, num_heads, head_dim = q.shape
    if k.dim() != 3 or k.shape[2] != head_dim or (query_offsets is None and k.shape[0] != num_queries):
        size = num_queries if query_offsets is None else "T"
        raise ValueError(f"k must have shape [{size}, Hkv, {head_dim}], got {_shape(k)}")
    num_tokens = k.shape[0]
    if v.shape != k.shape:
        raise ValueError(f"v must have shape {_shape(k)}, got {_shape(v)}")
    if num_heads < 1 or head_dim < 1:
        raise ValueError(f"q must have at least one head and one dimension, got {_shape(q)}")
    if k.shape[1] < 1 or num_heads % k.shape[1]:
        raise ValueError(f"heads of q must be a multiple of heads of k, got {num_heads} and {k.shape[1]}")
    if not q.is_floating_point():
        raise TypeError(f"q must be floating point, got {_dtype(q)}")
    for name, tensor in (("k", k), ("v", v)):
        if tensor.dtype != q.dtype:
            raise TypeError(f"{name} must be {_dtype(q)} like q, got {_dtype(tensor)}")
    for name, tensor in (("k", k), ("v", v), ("offsets", offsets)):
        _check_device(name, tensor, q.device)
    for name, times, size in (("query_times", query_times, num_queries), ("key_times", key_times, num_tokens)):
        if times is not None and times.numel() != size:
            raise ValueError(f"{name} must have shape [{size}], got {_shape(times)}")
    if query_offsets is not None and _values_are_at_hand(query_offsets) and int(query_offsets[-1]) != num_queries:
        raise ValueError(
            f"query_offsets must end at {num_queries}, the number of queries, got {int(query_offsets[-1])}"
        )
    if _values_are_at_hand(offsets) and int(offsets[-1]) != num_tokens:
        raise ValueError(f"offsets must end at {num_tokens}, the number of tokens, got {int(offsets[-1])}")


def check_scores(
    q: Tensor,
    activation: str,
    scale: float,
    scaling_length: float | None,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    query_times: Tensor | None,
) -> None:
    """Rules on how scores are made."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")
    if activation == "silu" and (scaling_length is None or not 0 < scaling_length < math.inf):
        raise ValueError(f"scaling_length must be a positive number for silu, got {scaling_length}")
    if activation == "softmax" and scaling_length is not None:
        raise ValueError(f"scaling_length must be None for softmax, got {scaling_length}")
    if position_bias is not None:
        _check_table("position_bias", "P", position_bias, q)
    if time_bias is not None:
        _check_table("time_bias", "num_buckets", time_bias, q)
    if time_bias is not None and query_times is None:
        raise ValueError("time_bias needs query_times and key_times, got None")


def check_forward_only(*tensors: Tensor | None) -> None:
    """With ``query_offsets`` there is no backward, and nothing is detached silently."""
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        raise ValueError(
            "jagged_attention has no backward with query_offsets; call it under torch.no_grad(), "
            "or without query_offsets on the queries of all tokens"
        )


def check_triton(q: Tensor) -> None:
    """What the Triton kernels do not take."""
    if q.dtype not in TRITON_DTYPES:
        raise TypeError(f"q must be float32, bfloat16 or float16 for Triton, got {_dtype(q)}")
    if q.shape[2] > TRITON_MAX_HEAD_DIM:
        raise ValueError(
            f"q must have at most {TRITON_MAX_HEAD_DIM} dimensions a head for Triton, got {q.shape[2]}"
        )


def _check_table(name: str, columns: str, table: Tensor, q: Tensor) -> None:
    if table.dim() != 2 or table.shape[0] != q.shape[1] or table.shape[1] < 1:
        raise ValueError(f"{name} must have shape [{q.shape[1]}, {columns}], got {_shape(table)}")
    if not table.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {_dtype(table)}")
    _check_device(name, table, q.device)


def _check_vector(name: str, tensor: Tensor, size: int | None, symbol: str, device: torch.device) -> None:
    if tensor.dim() != 1 or (size is not None and tensor.numel() != size):
        raise ValueError(f"{name} must have shape [{symbol if size is None else size}], got {_shape(tensor)}")
    if tensor.dtype != torch.int64:
        raise TypeError(f"{name} must be int64, got {_dtype(tensor)}")
    _check_device(name, tensor, device)


def _check_device(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(f"{name} must be on {device}, got {tensor.device}")


def _check_values(
    offsets: Tensor,
    num_candidates: Tensor | None,
    query_times: Tensor | None,
    key_times: Tensor | None,
    max_length: int | None,
    query_offsets: Tensor | None,
) -> None:
    lengths = offsets.diff()
    if int(offsets[0]) != 0:
        raise ValueError(f"offsets must start at 0, got {int(offsets[0])}")
    if bool((lengths < 0).any()):
        raise ValueError("offsets must not descend")
    if query_offsets is not None:
        if int(query_offsets[0]) != 0:
            raise ValueError(f"query_offsets must start at 0, got {int(query_offsets[0])}")
        if not bool(((query_offsets.diff() >= 0) & (query_offsets.diff() <= lengths)).all()):
            raise ValueError("query_offsets must give each sequence between 0 and its length of queries")
    num_queries = int((offsets if query_offsets is None else query_offsets)[-1])
    for name, times, size in (
        ("query_times", query_times, num_queries),
        ("key_times", key_times, int(offsets[-1])),
    ):
        if times is not None and times.numel() != size:
            raise ValueError(f"{name} must have shape [{size}], got {_shape(times)}")
    if num_candidates is not None and not bool(((num_candidates >= 0) & (num_candidates <= lengths)).all()):
        raise ValueError("num_candidates must lie between 0 and the length of each sequence")
    longest = int(lengths.max()) if lengths.numel() else 0
    if max_length is not None and longest > max_length:
        raise ValueError(f"max_length must be at least {longest}, the longest sequence, got {max_length}")


def _values_are_at_hand(tensor: Tensor) -> bool:
    return type(tensor) is Tensor and tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
