"""Pairs of sides in which nothing differs, drawn so that a careless test would find something.

Two strata of 64 heads and six features, eight signals for two routes; half of a head's noise is shared with the others, since
heads of a real model move together.  The promise is on the whole comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.compare.side import Cell, Group, Heads, Series, Side
from headwatch.observed import DRIFT_FEATURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADS, ROUTES, SIGNALS = 64, ("support", "search"), 8
BURN_IN = 40


@dataclass(frozen=True, slots=True)
class Null:
    """One kind of stream."""

    first: int = 30
    second: int = 30
    memory: float = 0.0
    common: float = 0.5
    tails: str = "normal"
    spread: float = 1.0
    """Of the second side over the first."""
    rows: tuple[float, float] = (160.0, 160.0)
    """Mean rows of a stratum and window, by side; sampling gives half of the variance at 160."""
    missing: float = 0.0
    longer: float = 0.0
    """Doublings by which contexts of the second side are longer within their strata; every head follows the length."""


NULLS: dict[str, Null] = {
    "independent windows": Null(),
    "heads that move together": Null(common=0.95),
    "AR(1) 0.3": Null(memory=0.3),
    "AR(1) 0.6": Null(memory=0.6),
    "AR(1) 0.9": Null(memory=0.9),
    "AR(1) 0.9, 120 windows": Null(memory=0.9, first=120, second=120),
    "heavy tails (t4)": Null(tails="t4"),
    "skewed (exponential)": Null(tails="exponential"),
    "second side twice as noisy": Null(spread=2.0),
    "8 windows against 45": Null(first=45, second=8),
    "8 noisier windows against 45": Null(first=45, second=8, spread=2.0),
    "a tenth of the rows": Null(rows=(160.0, 16.0)),
    "a third of the strata missing": Null(missing=0.33),
    "longer contexts": Null(longer=0.4),
}


def drawn(null: Null, seed: int) -> tuple[Side, Side]:
    """Return two sides of *null*."""
    random = np.random.default_rng((seed, 77))
    level = random.uniform(0.2, 0.8, (len(DRIFT_FEATURES), HEADS))
    slope = random.normal(0.0, 2.0, (len(DRIFT_FEATURES), HEADS))
    return _side(null, random, level, slope, 0), _side(null, random, level, slope, 1)


def _side(
    null: Null, random: np.random.Generator, level: NDArray[np.float64], slope: NDArray[np.float64], place: int
) -> Side:
    units = null.second if place else null.first
    spread, longer = (null.spread, null.longer) if place else (1.0, 0.0)
    cells, signals = {}, {}
    traffic = {"requests": np.full(units, 20.0), "prompt_log2": 20.0 * (9.5 + 0.1 * random.normal(size=units))}
    for route in ROUTES:
        rows = random.poisson(null.rows[place], units).astype(float) * (random.random(units) >= null.missing)
        length = 9.5 + longer + 0.2 * random.normal(size=units)
        noise = _noise(null, random, units, level.shape)
        sampling = random.normal(size=noise.shape) * np.sqrt(160.0 / np.maximum(rows, 1.0))[:, None, None]
        moved = spread * (noise + sampling) / np.sqrt(2.0) + slope * (length - 9.5)[:, None, None]
        values = np.where(rows[:, None, None] > 0, level + 0.01 * moved, np.nan).astype(np.float32)
        all_rows = np.repeat(rows[:, None], len(DRIFT_FEATURES), axis=1)
        cells[Cell("", route, "512-1k", "decode")] = Heads(values, all_rows, length[:, None])
        share = random.poisson(20.0 / len(ROUTES), units).astype(float)
        traffic[f"route:{route}"] = share
        for number, series in enumerate(_noise(null, random, units, (SIGNALS, 1))[:, :, 0].T):
            signals[Group("", route), f"signal_{number}"] = Series(0.5 + 0.02 * spread * series, share + 1.0)
    return Side("B" if place else "A", "windows", ("m",), ("r",), DRIFT_FEATURES, 8, 1, np.zeros(units, np.int64), units, 0, 1,
                cells, signals, traffic)  # fmt: skip


def _noise(null: Null, random: np.random.Generator, units: int, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return unit-variance noise [U, F, K], correlated over heads and windows."""
    total = units + (BURN_IN if null.memory else 0)
    shared = _draw(null.tails, random, (total, shape[0], 1))
    own = _draw(null.tails, random, (total, *shape))
    drawn_noise = np.sqrt(null.common) * shared + np.sqrt(1.0 - null.common) * own
    if null.memory:
        for window in range(1, total):
            fresh = np.sqrt(1.0 - null.memory**2) * drawn_noise[window]
            drawn_noise[window] = null.memory * drawn_noise[window - 1] + fresh
    return np.asarray(drawn_noise[-units:], np.float64)


def _draw(tails: str, random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    if tails == "t4":
        return np.asarray(random.standard_t(4, shape) / np.sqrt(2.0))
    if tails == "exponential":
        return np.asarray(random.exponential(size=shape) - 1.0)
    return np.asarray(random.normal(size=shape))
