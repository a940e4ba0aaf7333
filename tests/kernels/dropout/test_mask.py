"""The mask: what its definition says, the same bits everywhere, and no pattern that training could see."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unigrf_kernels.ops.dropout import seeded_dropout
from unigrf_kernels.ops.dropout.constants import MAX_ELEMENTS, keep_count, keep_scale
from unigrf_kernels.ops.dropout.reference import reference_keep_mask
from unigrf_kernels.ops.dropout.torch_path import keep_mask

SEEDS = st.integers(-(2**63), 2**63 - 1)
NUM = 1 << 18


def mask(seed: int, dropout: float = 0.5, numel: int = NUM) -> torch.Tensor:
    return keep_mask(torch.tensor(seed), numel, dropout).bool()


def deviation(hits: torch.Tensor, probability: float) -> float:
    """How many standard deviations the frequency of ``hits`` lies from ``probability``."""
    n = hits.numel()
    return abs(hits.double().mean().item() - probability) * math.sqrt(n / (probability * (1 - probability)))


def test_first_words_worked_out_with_python_integers() -> None:
    """The definition once more, in arithmetic without tensors."""
    word = 0xFFFFFFFF

    def mix(x: int) -> int:
        x = ((x ^ (x >> 16)) * 0x21F0AAAD) & word
        x = ((x ^ (x >> 15)) * 0xD35A2D97) & word
        return x ^ (x >> 15)

    seed = -3 % 2**64
    low, high = seed & word, seed >> 32
    key_0, key_1 = mix(low ^ mix(high ^ 0x85EBCA6B)), mix(high ^ mix(low ^ 0xC2B2AE35))
    expected = []
    for element in range(101):
        x = (element // 2 * 0x9E3779B1 + key_0) & word
        x = ((x ^ (x >> 16)) * 0x21F0AAAD + key_1) & word
        x = ((x ^ (x >> 15)) * 0xD35A2D97) & word
        x ^= x >> 15
        half = (x >> 16 * (element % 2)) & 0xFFFF
        signed = half - 65536 if half >= 32768 else half
        expected.append(signed < round(0.7 * 65536) - 32768)
    assert mask(-3, 0.3, 101).tolist() == expected


@given(seed=SEEDS, numel=st.integers(0, 3000), dropout=st.floats(0.0, 0.999))
def test_torch_path_gives_the_bits_of_the_definition(seed: int, numel: int, dropout: float) -> None:
    expected = reference_keep_mask(torch.tensor(seed), numel, dropout)
    assert torch.equal(mask(seed, dropout, numel), expected)


def test_torch_path_agrees_across_its_chunks() -> None:
    numel = 2 * (1 << 18) + 12345
    assert torch.equal(mask(7, 0.2, numel), reference_keep_mask(torch.tensor(7), numel, 0.2))


def test_a_longer_mask_begins_with_the_shorter() -> None:
    assert torch.equal(mask(5, numel=1001), mask(5, numel=5000)[:1001])


@pytest.mark.parametrize("dropout", [0.01, 0.1, 0.2, 0.5, 0.9, 0.999])
def test_share_of_kept_elements(dropout: float) -> None:
    kept = keep_count(dropout) / 2**16
    assert abs(kept - (1 - dropout)) <= 2**-17
    assert deviation(mask(1, dropout, 1 << 20), kept) < 4
    assert keep_scale(dropout) * kept == pytest.approx(1, rel=1e-15)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 25, 50, 64, 127, 128, 200, 1024, 4096, 65536])
def test_neighbours_in_the_index_are_independent(lag: int) -> None:
    kept = mask(11)
    assert deviation(kept[lag:] == kept[:-lag], 0.5) < 4


@pytest.mark.parametrize("other", [1, 2, 3, 255, 2**16, 2**31, 2**32, 2**32 + 1, 2**62, -1])
def test_neighbours_in_the_seed_are_independent(other: int) -> None:
    for base in (0, 1, 123456789):
        assert deviation(mask(base) == mask(base ^ other if other > 0 else -1 - base), 0.5) < 4


def test_neighbouring_seeds_are_independent_at_shifted_indices() -> None:
    """A block with seed s + 1 must not see the mask of the block with seed s, moved by some rows."""
    for shift in (1, 2, 50, 100, 4096):
        assert deviation(mask(100)[shift:] == mask(101)[:-shift], 0.5) < 4


def test_triples_are_balanced() -> None:
    """Parity of three neighbours, of a row, its neighbour and both columns: what linear hashes fail."""
    kept = mask(13).view(-1, 64)
    assert deviation(kept[:, 2:] ^ kept[:, 1:-1] ^ kept[:, :-2], 0.5) < 4
    assert deviation(kept[1:, 1:] ^ kept[:-1, 1:] ^ kept[1:, :-1] ^ kept[:-1, :-1], 0.5) < 4


def test_rows_and_columns_keep_as_many_as_chance_would() -> None:
    """Chi-squared of the counts per column and per row, within 5 deviations of its mean."""
    kept = mask(17, 0.2, 4096 * 50).view(4096, 50)
    probability = keep_count(0.2) / 2**16
    for axis, draws in ((0, 4096), (1, 50)):
        counts = kept.double().sum(axis)
        chi = ((counts - draws * probability) ** 2).sum() / (draws * probability * (1 - probability))
        degrees = counts.numel()
        assert abs(chi.item() - degrees) < 5 * math.sqrt(2 * degrees)


def test_every_bit_of_the_seed_matters() -> None:
    masks = {tuple(mask(1 << bit if bit < 63 else -(2**63), numel=256).tolist()) for bit in range(64)}
    assert len(masks) == 64


@pytest.mark.parametrize("dropout", [0.0, 2**-18])
def test_a_dropout_that_rounds_to_nothing_keeps_all(dropout: float) -> None:
    assert mask(3, dropout, 1000).all()
    assert keep_scale(dropout) == 1.0


def test_mask_operator_obeys_the_rules_of_custom_operators() -> None:
    torch.library.opcheck(keep_mask, (torch.tensor(3), 1001, 0.2))


def test_more_elements_than_counters_are_refused() -> None:
    x = torch.empty(MAX_ELEMENTS // 2 + 1, 2, device="meta")
    expected = f"^dropout must cover at most {MAX_ELEMENTS} elements, got {MAX_ELEMENTS + 2}$"
    with pytest.raises(ValueError, match=expected):
        seeded_dropout(x, dropout=0.1, seed=0)
