"""Simulated window means of attention heads while nothing changes: the null families of ``headwatch bench drift``.

Each family is one way in which healthy traffic differs from independent normal noise.  All give heads with mean 0 and
variance 1 in a window of typical rows.  Heads stand in layers of :data:`HEADS_IN_LAYER`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

HEADS_IN_LAYER = 32
TYPICAL_ROWS = 40.0
DAY_WINDOWS = 1440
_MISSING = 0.1
_NIGHT_WINDOWS = 180


@dataclass(frozen=True, slots=True)
class Block:
    """Some windows in a row: values [N, R, K] of R replicas, NaN where missing, and their rows [N, R]."""

    values: NDArray[np.float64]
    rows: NDArray[np.float64]


class Source(Protocol):
    """A stream that goes on where it stopped."""

    def take(self, first: int, windows: int) -> Block:
        """Return the *windows* windows that begin with the one numbered *first*."""


class Slow:
    """AR(1) signals of variance 1."""

    def __init__(self, phi: float, shape: tuple[int, ...], random: np.random.Generator) -> None:
        self._phi, self._random = phi, random
        self._state = random.standard_normal(shape)

    def take(self, windows: int) -> NDArray[np.float64]:
        """Return the next *windows* values, [N, *shape]."""
        noise: NDArray[np.float64] = self._random.standard_normal((windows, *self._state.shape)) * np.sqrt(1.0 - self._phi**2)
        for window in range(windows):
            self._state = self._phi * self._state + noise[window]
            noise[window] = self._state
        return noise


@dataclass(slots=True)
class Mixture:
    """Heads that are a sum of slow parts, of their own and common to all, and white noise of some shape."""

    replicas: int
    heads: int
    random: np.random.Generator
    own_slow: float = 0.0  # share of the variance
    common_slow: float = 0.0
    signed: bool = False  # whether what is slow and common moves some heads up and others down
    common_white: float = 0.0
    phi: float = 0.9
    white: Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]] | None = None
    cycle: float = 0.0  # amplitude of a daily cycle, in standard deviations
    rows: Callable[[np.random.Generator, int, int, int], NDArray[np.float64]] | None = None  # (random, first, N, R)
    _own: Slow = field(init=False)
    _common: Slow = field(init=False)
    _phase: NDArray[np.float64] = field(init=False)
    _signs: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self._own = Slow(self.phi, (self.replicas, self.heads), self.random)
        self._common = Slow(self.phi, (self.replicas, 1), self.random)
        self._phase = self.random.uniform(0.0, 0.5, (self.replicas, self.heads))
        shape = (self.replicas, self.heads)
        self._signs = self.random.choice((-1.0, 1.0), shape) if self.signed else np.ones(shape)

    def take(self, first: int, windows: int) -> Block:
        """Return the next windows."""
        shape = (windows, self.replicas, self.heads)
        rows = np.full((windows, self.replicas), TYPICAL_ROWS)
        if self.rows is not None:
            rows = self.rows(self.random, first, windows, self.replicas)
        noise: NDArray[np.float64] = (
            self.random.standard_normal(shape) if self.white is None else self.white(self.random, shape)
        )
        with np.errstate(divide="ignore"):
            noise *= np.sqrt(TYPICAL_ROWS / rows)[:, :, None]
        share = 1.0 - self.own_slow - self.common_slow - self.common_white
        values = np.sqrt(share) * noise
        if self.own_slow:
            values += np.sqrt(self.own_slow) * self._own.take(windows)
        if self.common_slow:
            values += np.sqrt(self.common_slow) * self._signs * self._common.take(windows)
        if self.common_white:
            values += np.sqrt(self.common_white) * self.random.standard_normal((windows, self.replicas, 1))
        if self.cycle:
            day = 2.0 * np.pi * np.arange(first, first + windows) / DAY_WINDOWS
            values += self.cycle * np.sin(day[:, None, None] + self._phase)
        values[rows == 0] = np.nan
        return Block(values, rows)


def student(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return Student's t with four degrees of freedom, variance 1."""
    values: NDArray[np.float64] = random.standard_t(4, shape) / np.sqrt(2.0)
    return values


def exponential(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return exponential values, mean 0 and variance 1."""
    return random.standard_exponential(shape) - 1.0


def few_rows(random: np.random.Generator, first: int, windows: int, replicas: int) -> NDArray[np.float64]:
    """Return rows of a route that is hardly used: none to a dozen, typically three, less at night."""
    day = 2.0 * np.pi * np.arange(first, first + windows) / DAY_WINDOWS
    counts = random.poisson(3.0 * (1.0 + 0.6 * np.sin(day))[:, None], (windows, replicas))
    return counts.astype(np.float64) * TYPICAL_ROWS / 3.0


def changing_rate(random: np.random.Generator, first: int, windows: int, replicas: int) -> NDArray[np.float64]:
    """Return rows where somebody changes the sampling rate every six hours: as ever, a quarter, four times."""
    factor = np.array([1.0, 0.25, 4.0])[np.arange(first, first + windows) // 360 % 3]
    return random.poisson(TYPICAL_ROWS * factor[:, None], (windows, replicas)).astype(np.float64)


def missing(random: np.random.Generator, first: int, windows: int, replicas: int) -> NDArray[np.float64]:
    """Return rows with one window in ten missing, and three hours of each day."""
    rows = np.where(random.random((windows, replicas)) < _MISSING, 0.0, TYPICAL_ROWS)
    rows[np.arange(first, first + windows) % DAY_WINDOWS < _NIGHT_WINDOWS] = 0.0
    return rows


FAMILIES: dict[str, dict[str, object]] = {
    "independent": {},
    "correlated heads": {"common_white": 0.5},
    "AR .3": {"own_slow": 1.0, "phi": 0.3},
    "AR .6": {"own_slow": 1.0, "phi": 0.6},
    "AR .9": {"own_slow": 1.0, "phi": 0.9},
    "AR .9 with sampling noise": {"own_slow": 0.5, "phi": 0.9},
    "common slow factor": {"common_slow": 0.5, "phi": 0.95},
    "slow factor with signs": {"common_slow": 0.5, "phi": 0.95, "signed": True},
    "heavy tails": {"white": student},
    "skewed tails": {"white": exponential},
    "daily cycle": {"cycle": 0.5},
    "changing sampling rate": {"own_slow": 0.3, "rows": changing_rate},
    "few rows": {"white": exponential, "rows": few_rows},
    "missing windows": {"own_slow": 0.3, "rows": missing},
}


def source(family: str, replicas: int, heads: int, random: np.random.Generator) -> Mixture:
    """Return a fresh source of the null *family*."""
    return Mixture(replicas, heads, random, **FAMILIES[family])  # type: ignore[arg-type]  # a table of its own fields


class Together:
    """Several sources side by side, their replicas one after the other: one detector watches them all, which costs it less."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def take(self, first: int, windows: int) -> Block:
        """Return the next windows of all of them."""
        blocks = [stream.take(first, windows) for stream in self._sources]
        return Block(
            np.concatenate([block.values for block in blocks], axis=1), np.concatenate([block.rows for block in blocks], axis=1)
        )
