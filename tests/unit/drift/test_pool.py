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


@pytest.mark.parametrize("scale", [1, 8])
@pytest.mark.parametrize("first", [0, 5, 63])
def test_blocks_made_at_once_are_those_made_window_by_window(scale, first) -> None:
    levels, w, rows = windows(200)
    collector = pool.Pool(scale, LAYER, 2)
    expected = []
    for number, level, innovation, count in zip(range(first, first + 200), levels, w, rows, strict=True):
        expected += collector.step(number, Seen(level, innovation, np.ones(2), np.zeros(2)), count)
    found = pool.blocks(scale, LAYER, first, levels, w, rows)
    assert len(found.rows) == len(expected)
    for name in ("level", "energy", "lasting", "rows"):
        np.testing.assert_allclose(getattr(found, name), np.stack([getattr(block, name) for block in expected]))


def test_energy_of_healthy_heads_is_one_and_of_shifted_ones_more() -> None:
    random = np.random.default_rng(2)
    w = random.standard_normal((8, 1, 500))
    layer = np.zeros(500, np.int64)
    rows = np.ones((8, 1))
    healthy = pool.blocks(8, layer, 0, w, w, rows).energy[0, 0, 0]
    shifted = w + 0.5 * random.choice((-1.0, 1.0), 500)
    assert healthy == pytest.approx(1.0, abs=0.08)
    assert pool.blocks(8, layer, 0, shifted, shifted, rows).energy[0, 0, 0] > 1.3


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_what_lasts_is_nothing_while_nothing_changes_whatever_the_spread(spread) -> None:
    random = np.random.default_rng(4)
    w = spread * random.standard_normal((800, 1, 200))
    found = pool.blocks(8, np.zeros(200, np.int64), 0, w, w, np.ones((800, 1))).lasting[:, 0, 0]
    assert abs(found.mean()) < 4.0 * spread / np.sqrt(200 * len(found))


def test_a_small_shift_that_lasts_shows_more_with_every_block() -> None:
    random = np.random.default_rng(5)
    shift = 0.2 * random.choice((-1.0, 1.0), 500)
    w = shift + random.standard_normal((320, 1, 500))
    found = pool.blocks(8, np.zeros(500, np.int64), 0, w, w, np.ones((320, 1))).lasting[:, 0, 0]
    lately = 8 * 0.2**2 * (1.0 + pool.MEMORY) / (1.0 - pool.MEMORY)
    whole = np.sqrt(8 * 0.2**2 * lately / (1.0 + lately))
    assert found[0] == 0.0
    assert found[20:].mean() == pytest.approx(whole, rel=0.1)
    assert found[1:4].mean() < 0.75 * whole


def test_a_gap_fades_what_was_before_it() -> None:
    w = 1.0 + np.random.default_rng(6).standard_normal((1, 12))
    kept = []
    for gap in (0, 40):
        collector = pool.Pool(8, LAYER, 1)
        for number in range(8):
            collector.step(number, Seen(w, w, np.ones(1), np.zeros(1)), np.ones(1))
        collector.step(8 + 8 * gap, Seen(w, w, np.ones(1), np.zeros(1)), np.ones(1))
        kept.append(collector.lately)
    np.testing.assert_allclose(kept[1], pool.MEMORY**40 * kept[0])


def test_what_all_heads_have_in_common_is_no_energy() -> None:
    w = np.random.default_rng(3).standard_normal((64, 1, 200))
    layer, rows = np.zeros(200, np.int64), np.ones((64, 1))
    alone = pool.blocks(8, layer, 0, w, w, rows).energy
    np.testing.assert_allclose(pool.blocks(8, layer, 0, w + 3.0, w + 3.0, rows).energy, alone, atol=1e-9)


def test_heads_whose_means_are_estimates_show_more_energy_later() -> None:
    """A bias that grows with the block, shrinks with the baseline, and is larger where heads vary together."""
    even, uneven, day = np.array([[0.1]]), np.array([[0.5]]), np.array([[1440.0]])
    assert pool.bias("energy", 8, day, even) > pool.bias("energy", 1, day, even) > pool.bias("energy", 1, 7 * day, even)
    assert pool.bias("lasting", 8, day, uneven) > pool.bias("lasting", 8, day, even) > pool.bias("energy", 8, day, even)


def test_what_a_large_change_has_left_behind_makes_no_chance_look_larger() -> None:
    random = np.random.default_rng(8)
    w = random.standard_normal((320, 1, 200))
    w[:64] += 3.0 * random.choice((-1.0, 1.0), 200)
    found = pool.blocks(8, np.zeros(200, np.int64), 0, w, w, np.ones((320, 1))).lasting[:, 0, 0]
    assert found[4:8].min() > 1.0
    assert found[8:].std() < 1.5 / np.sqrt(200)
