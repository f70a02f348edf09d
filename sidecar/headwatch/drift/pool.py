"""Many heads together, over blocks of windows: what no single head shows.

A quarter of a standard deviation in every head takes one head hundreds of windows to notice, and all heads together a few.
Averages over heads mislead where they are all that is looked at; here they are further streams beside the heads, with a
baseline of their own, so that heads which move together by nature are paid for in their scale.  Up to three values a block of
windows, for all heads and for each layer:

* ``level``: the mean over heads of their levels, for shifts in one direction.  Levels and not innovations, because a slow cause
  that is common to all heads is plain AR(1) there, which the pool's own filter foresees, and something else after the filters
  of the heads;
* ``energy``: the cube root of the variance over heads of their innovations' block sums, for shifts in different directions, for
  changes of spread, and for few heads.  About their mean, because what all heads have in common comes and goes in clusters.
  (The cube root makes a sum of squares nearly normal.)
* ``lasting``: the covariance over heads of their innovations' block sums with what those sums were lately (a mean that fades
  by :data:`MEMORY` a block), over the deviation of the latter, for small shifts that last, each in a direction of its own.
  Nothing has to be known of how large a block's sums ordinarily are, so a baseline of few blocks says all that is needed: while
  nothing changes it is 0 on average, whatever the spread, and a shift moves both the same way.  Over the deviation, or what a
  change that is over has left in the fading mean would make chance look large for hours.

Blocks are aligned to the window number, so that a restart changes nothing.  A block with less than half of its windows counts
as missing.

The three share this file because they are three readings of the same sums: one collector a scale gathers levels, innovations
and rows once, and a family is one line of :func:`_block`.  Apart, each would gather, save and restore the same arrays.

Cost: some ten array operations a window and scale, and seven products with the members [K, 1 + L] a block; 24 bytes of state a
scale, head and feature, 32 where what lasts is looked for.
Source: E. B. Wilson, M. M. Hilferty, "The distribution of chi-square", PNAS 1931, for the cube root; the rest is our own, and
docs/method.md says how it was chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from headwatch.drift.stream import Seen

Kind = Literal["level", "energy", "lasting"]
SCALES: dict[int, tuple[Kind, ...]] = {1: ("level", "energy"), 8: ("energy", "lasting")}
"""Windows in a block, and what is pooled over them.

A shift of levels is gathered window by window and nothing is lost; squares of sums say more than sums of squares.
"""

MEMORY = 0.875
"""What is left of a block in the mean that fades, one block later: eight blocks, an hour of windows of a minute."""
_REACH = float(np.sqrt((1.0 + MEMORY) / (1.0 - MEMORY)))
"""Times its own deviation that a fading mean of equal shifts is larger than one block's."""
_TINY = 1e-9
_STATE = ("level", "total", "seen", "rarity", "doubt", "margin", "windows")
_MOST_MISSING = 1024
"""Blocks after which nothing that was foreseen matters any more."""


@dataclass(frozen=True, slots=True)
class Block:
    """What one block came to: all heads first, then each layer."""

    level: NDArray[np.float64]  # [F, streams]
    energy: NDArray[np.float64]  # [F, streams]
    lasting: NDArray[np.float64]  # [F, streams]
    rows: NDArray[np.float64]  # [F] harmonic mean of the windows', 0 where there was none
    doubt: NDArray[np.float64]  # [F] what the variance of its windows was taken for over what it may be at least
    margin: NDArray[np.float64]  # [F] by how much, as a share, that variance may be larger all the same

    def of(self, kind: Kind) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return values and rows of the pool *kind*; what innovations vary by does not go with rows."""
        return (self.level, self.rows) if kind == "level" else (getattr(self, kind), np.ones_like(self.rows))


@dataclass(frozen=True, slots=True)
class _Sums:
    """What a block has gathered."""

    level: NDArray[np.float64]  # [..., F, K]
    total: NDArray[np.float64]  # [..., F, K] of innovations
    seen: NDArray[np.float64]  # [..., F, K] windows of each head
    rarity: NDArray[np.float64]  # [..., F] of 1 / rows
    doubt: NDArray[np.float64]  # [..., F]
    margin: NDArray[np.float64]  # [..., F]
    windows: NDArray[np.float64]  # [..., F] in which there was any head


def _members(layer: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return which heads belong to all heads and to each layer, [K, 1 + L]."""
    members = np.zeros((len(layer), 1 + int(layer.max(initial=0)) + 1))
    members[:, 0] = 1.0
    members[np.arange(len(layer)), 1 + layer] = 1.0
    return members


def _totals(scale: int, sums: _Sums) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which heads were seen in half of a block, and their innovations' sums in standard deviations, [..., F, K]."""
    enough = (2 * sums.seen >= scale) & (sums.seen > 0)
    return enough, np.where(enough, sums.total / np.sqrt(np.maximum(sums.seen, 1.0)), 0.0)


def _faded(lately: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the fading mean after one more block; its variance is that of one block's sum."""
    mean: NDArray[np.float64] = MEMORY * lately + np.sqrt(1.0 - MEMORY**2) * total
    return mean


def _block(scale: int, members: NDArray[np.float64], sums: _Sums, lately: NDArray[np.float64]) -> Block:
    """Return what *sums* come to; *lately* [..., F, K] is the fading mean of the blocks before."""
    enough, total = _totals(scale, sums)
    level = np.where(enough, sums.level / np.maximum(sums.seen, 1.0), 0.0)
    lately = np.where(enough, lately, 0.0)
    heads = enough @ members  # [..., F, streams]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = level @ members / heads
        of_totals = total @ members / heads
        energy = np.cbrt(np.maximum(total**2 @ members / heads - of_totals**2, 0.0))
        of_lately = lately @ members / heads
        size = np.sqrt(np.maximum(lately**2 @ members / heads - of_lately**2, 0.0))
        lasting = ((total * lately) @ members / heads - of_totals * of_lately) / np.maximum(size, _TINY)
        rows = np.where(sums.windows > 0, sums.windows / sums.rarity, 0.0)
    doubt, margin = (doubts / np.maximum(sums.windows, 1.0) for doubts in (sums.doubt, sums.margin))
    several = heads > 1
    return Block(
        np.where(heads > 0, mean, np.nan), np.where(several, energy, np.nan), np.where(several, lasting, np.nan), rows, doubt,
        margin,
    )  # fmt: skip


class Pool:
    """Collects levels and innovations of F x K heads into blocks of *scale* windows."""

    def __init__(self, scale: int, layer: NDArray[np.int64], features: int) -> None:
        """*layer* [K] numbers the layer of each head, 0 … L-1."""
        self.scale = scale
        self._members = _members(layer)
        self.level = np.zeros((features, len(layer)))
        self.total = np.zeros((features, len(layer)))
        self.seen = np.zeros((features, len(layer)))
        self.rarity, self.doubt, self.margin, self.windows = np.zeros((4, features))
        self._lasting = "lasting" in SCALES[scale]
        self._kept = (*_STATE, "lately") if self._lasting else _STATE
        self.lately = np.zeros((features, len(layer)))
        """Fading mean of the blocks that ended; zero where nothing that lasts is looked for."""
        self.block = -1
        """The block that is open."""

    def step(self, number: int, seen: Seen, rows: NDArray[np.float64]) -> list[Block]:
        """Take what window *number* came to, and its *rows* [F]; return the blocks that ended.

        That is this window's where it is the last of its block, and before it those whose last windows were missing.
        """
        ended: list[Block] = []
        block = number // self.scale
        if block > self.block >= 0:
            ended.append(self._close())
            missing = min(block - self.block - 1, _MOST_MISSING)
            nothing = np.full_like(ended[0].level, np.nan)
            ended += [Block(nothing, nothing, nothing, *np.zeros((3, len(rows))))] * missing
            self.lately = MEMORY**missing * self.lately
        if block != self.block:
            self.block = block
        known = ~np.isnan(seen.w)
        self.level += np.where(known, seen.level, 0.0)
        self.total += np.where(known, seen.w, 0.0)
        self.seen += known
        present = known.any(axis=1)
        self.rarity += np.where(present, 1.0 / np.maximum(rows, 1.0), 0.0)
        self.doubt += np.where(present, seen.doubt, 0.0)
        self.margin += np.where(present, seen.margin, 0.0)
        self.windows += present
        if (number + 1) % self.scale == 0:
            ended.append(self._close())
            self.block = block + 1
        return ended

    def _close(self) -> Block:
        sums = _Sums(**{name: getattr(self, name) for name in _STATE})
        closed = _block(self.scale, self._members, sums, self.lately)
        if self._lasting:
            self.lately = _faded(self.lately, _totals(self.scale, sums)[1])
        for name in _STATE:
            setattr(self, name, np.zeros_like(getattr(self, name)))
        return closed

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return the block that is open, and what those before leave."""
        return {**{name: getattr(self, name) for name in self._kept}, "block": np.array(self.block)}

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on where :meth:`save` was called."""
        for name in self._kept:
            setattr(self, name, saved[name].astype(np.float64))
        self.block = int(saved["block"])


def blocks(
    scale: int, layer: NDArray[np.int64], first: int, levels: NDArray[np.float64], w: NDArray[np.float64],
    rows: NDArray[np.float64],
) -> Block:
    """Return what :class:`Pool` makes of all windows from number *first* on: arrays with one more axis, the blocks, in front.

    *levels* and *w* are [N, F, K], *rows* [N, F]; a block that is still open at the end is left out.
    """
    before = first % scale
    count = (before + len(w)) // scale
    whole = slice(0, count * scale - before)
    _, features, heads = w.shape

    def in_blocks(values: NDArray[np.float64], fill: float) -> NDArray[np.float64]:
        padded = np.concatenate([np.full((before, *values.shape[1:]), fill), values[whole]])
        blocks: NDArray[np.float64] = padded.reshape(count, scale, *values.shape[1:])
        return blocks

    known = in_blocks((~np.isnan(w)).astype(np.float64), 0.0)
    present = known.any(axis=3)
    sums = _Sums(
        level=in_blocks(np.where(np.isnan(w), 0.0, levels), 0.0).sum(axis=1),
        total=in_blocks(np.nan_to_num(w), 0.0).sum(axis=1),
        seen=known.sum(axis=1),
        rarity=np.where(present, in_blocks(1.0 / np.maximum(rows, 1.0), 0.0), 0.0).sum(axis=1),
        doubt=np.zeros((count, features)),
        margin=np.zeros((count, features)),
        windows=present.sum(axis=1).astype(np.float64),
    )
    assert sums.level.shape == (count, features, heads)  # one block a row
    lately = np.zeros_like(sums.total)
    if "lasting" in SCALES[scale]:
        _, totals = _totals(scale, sums)
        for block in range(1, count):
            lately[block] = _faded(lately[block - 1], totals[block - 1])
    return _block(scale, _members(layer), sums, lately)


def unevenness(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standard deviation over mean of the cubes of *energy* [N, F, streams] in single windows, [F, streams]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        known = ~np.isnan(energy)
        count = np.maximum(known.sum(axis=0), 1)
        cubes = np.where(known, energy, 0.0) ** 3
        mean = cubes.sum(axis=0) / count
        deviation = np.sqrt(np.maximum((cubes**2).sum(axis=0) / count - mean**2, 0.0))
        ratio: NDArray[np.float64] = np.nan_to_num(deviation / mean, posinf=0.0)
        return ratio


def bias(kind: Kind, scale: int, windows: NDArray[np.float64], relative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much a pool of *kind* may be higher after the baseline than in it though nothing changed, as *relative* is.

    The heads' means are estimates from *windows* [F, 1] windows.  In the baseline itself that takes 1 / windows from the mean
    of their squares, afterwards it adds as much; in a block of *scale* windows it is *scale* times that.  How much it varies
    from baseline to baseline is told by *relative*, the standard deviation over the mean of energy's cube in single windows;
    two of those are added.  A third of it shows in the cube root.  What lasts is off by the product of a block's error and
    that of the blocks before, which is larger by :data:`_REACH`.
    """
    off = (scale + 1) / 3.0 if kind == "energy" else scale * _REACH
    return np.asarray(2.0 * off / windows * (1.0 + 2.0 * relative))
