"""Pools: a baseline's blocks are made all at once, a watch's window by window, and they are the same."""

from __future__ import annotations

import numpy as np
import pytest

from headwatch.drift import pool
from headwatch.drift.stream import Seen

LAYER = np.arange(12) // 4


def windows(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return levels and innovations [N, 2, 12] with gaps, and rows [N, 2]."""
    random = np.random.default_rng(1)
    levels, w = random.standard_normal((2, count, 2, 12))
    w[random.random(w.shape) < 0.1] = np.nan
    w[20:31] = np.nan
    return np.where(np.isnan(w), np.nan, levels), w, random.integers(1, 90, (count, 2)).astype(float)


@pytest.mark.parametrize("scale", [1, 8, 64])
@pytest.mark.parametrize("first", [0, 5, 63])
def test_blocks_made_at_once_are_those_made_window_by_window(scale, first) -> None:
    levels, w, rows = windows(200)
    collector = pool.Pool(scale, LAYER, 2)
    expected = []
    for number, level, innovation, count in zip(range(first, first + 200), levels, w, rows, strict=True):
        expected += collector.step(number, Seen(level, innovation, np.ones(2), np.zeros(2)), count)
    found = pool.blocks(scale, LAYER, first, levels, w, rows)
    assert len(found.rows) == len(expected)
    for name in ("level", "energy", "rows"):
        np.testing.assert_allclose(getattr(found, name), np.stack([getattr(block, name) for block in expected]))


def test_energy_of_healthy_heads_is_one_and_of_shifted_ones_more() -> None:
    random = np.random.default_rng(2)
    w = random.standard_normal((64, 1, 500))
    layer = np.zeros(500, np.int64)
    rows = np.ones((64, 1))
    healthy = pool.blocks(64, layer, 0, w, w, rows).energy[0, 0, 0]
    shifted = w + 0.25 * random.choice((-1.0, 1.0), 500)
    assert healthy == pytest.approx(1.0, abs=0.08)
    assert pool.blocks(64, layer, 0, shifted, shifted, rows).energy[0, 0, 0] > 1.5


def test_what_all_heads_have_in_common_is_no_energy() -> None:
    w = np.random.default_rng(3).standard_normal((64, 1, 200))
    layer, rows = np.zeros(200, np.int64), np.ones((64, 1))
    alone = pool.blocks(8, layer, 0, w, w, rows).energy
    np.testing.assert_allclose(pool.blocks(8, layer, 0, w + 3.0, w + 3.0, rows).energy, alone, atol=1e-9)


def test_heads_whose_means_are_estimates_show_more_energy_later() -> None:
    """A bias that grows with the block, shrinks with the baseline, and is larger where heads vary together."""
    even, uneven = np.array([[0.1]]), np.array([[0.5]])
    assert pool.bias(64, 1440, even) > pool.bias(8, 1440, even) > pool.bias(8, 10_080, even)
    assert pool.bias(64, 1440, uneven) > pool.bias(64, 1440, even)
