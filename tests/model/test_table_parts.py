"""Pieces of the item table: how rows are drawn, columns cut and ids dealt out."""

from __future__ import annotations

import pytest
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import Tensor

from unigrf_dist.config.schema import TableConfig
from unigrf_dist.model.table_shard import TableShard
from unigrf_dist.model.tables import _cut, _draw_shard, _fused_params, _sample_lengths

BLOCK = 4096
WIDTH, SEED, STD = 6, 11, 0.25


def drawn(first: int, last: int, column: int = 0, columns: int = WIDTH) -> Tensor:
    weight = torch.full((last - first, columns), 9.0)
    _draw_shard(TableShard(first, column, weight), WIDTH, STD, SEED)
    return weight


def test_a_table_is_the_same_however_it_is_cut() -> None:
    rows = 2 * BLOCK + 100
    whole = drawn(0, rows)
    for edge in (1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, rows):
        assert torch.equal(torch.cat([drawn(0, edge), drawn(edge, rows)]), whole)
    assert torch.equal(torch.cat([drawn(5, 8000, 0, 4), drawn(5, 8000, 4, 2)], dim=1), whole[5:8000])


def test_each_block_of_rows_is_a_draw_of_its_own_seed() -> None:
    whole = drawn(0, 2 * BLOCK)
    for block in (0, 1):
        generator = torch.Generator().manual_seed(SEED * 1_000_003 + block)
        expected = STD * torch.randn(BLOCK, WIDTH, generator=generator)
        assert torch.equal(whole[block * BLOCK : (block + 1) * BLOCK], expected)


def test_columns_beyond_the_width_are_zero() -> None:
    wide = drawn(3, 50, 0, 8)
    assert torch.equal(wide[:, :WIDTH], drawn(3, 50))
    assert not wide[:, WIDTH:].any()
    assert torch.equal(drawn(3, 50, 4, 4)[:, :2], drawn(3, 50)[:, 4:])


@pytest.mark.parametrize(
    ("width", "parts", "cut"),
    [(8, 1, 8), (8, 2, 4), (16, 2, 8), (24, 3, 8), (8, 3, 8), (12, 2, 12), (16, 3, 16), (12, 3, 4)],
)
def test_columns_are_cut_evenly_into_fours_or_not_at_all(width: int, parts: int, cut: int) -> None:
    assert _cut(width, parts) == cut


@pytest.mark.parametrize("number", [0, 1, 255, 256, 257, 1000])
def test_ids_are_dealt_out_evenly_to_256_samples(number: int) -> None:
    lengths = _sample_lengths(number, torch.device("cpu"))
    assert (lengths.shape, lengths.dtype) == ((256,), torch.int64)
    assert lengths.sum() == number
    assert lengths.max() - lengths.min() <= 1


def test_the_fused_optimizer_is_the_one_of_the_configuration() -> None:
    values = {"learning_rate": 0.3, "eps": 1e-5, "betas": (0.8, 0.7)}
    adam = _fused_params(TableConfig.model_validate({"optimizer": "adam", **values}))
    shared = {"learning_rate": 0.3, "eps": 1e-5}
    assert adam == {"optimizer": EmbOptimType.ADAM, "beta1": 0.8, "beta2": 0.7, **shared}
    for name, kind in {
        "sgd": EmbOptimType.EXACT_SGD,
        "adagrad": EmbOptimType.EXACT_ADAGRAD,
        "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    }.items():
        params = _fused_params(TableConfig.model_validate({"optimizer": name, **shared}))
        assert params == {"optimizer": kind, **shared}
