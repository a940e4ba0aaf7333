"""A part of a sharded table; a file of its own, so that evaluation need not import TorchRec for it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TableShard:
    """The rectangle of a table that lies on this rank.

    Attributes:
        row_offset: first row of the table in it.
        column_offset: first column of the table in it.
        weight: ``[rows, columns]``; columns beyond the table's width are padding.
    """

    row_offset: int
    column_offset: int
    weight: Tensor


@dataclass(frozen=True)
class StateShard:
    """A part of a table's weights or optimizer state that lies on this rank.

    Attributes:
        row_offset, column_offset: where it begins in the table.
        values: ``[rows, columns]``, or ``[rows]``.
    """

    row_offset: int
    column_offset: int
    values: Tensor
