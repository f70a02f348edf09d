"""The budget of capture: what it may cost, as a share of the engine's step time.

A purse of seconds is filled by each step with 0.8 of its share of the step's duration, and pays for what the hooks really
took.  Rows are planned only while there is money in it, by what the cost model says they will cost, so a load spike is
answered before it is paid for.  A step that begins with an empty purse is not even looked at: on an engine whose steps take
three milliseconds, looking alone would cost some percent.  The purse holds at most 0.2 of the budget of 10 seconds, less one
overdraft, so that in any 10 seconds of steps capture costs no more than its share, as far as the prediction of one row
holds.  A row dearer than half of that is summarised in every second, fourth ... layer only.

The purse alone would take all rows of one step and none of the next ones.  So rows are thinned beforehand, by a stride.  It
rises at once to what the demand of the last seconds needs, and falls by one notch after a calm time in which that notch
would have been enough; while the purse is low it counts double.  It cannot swing: a stride that is too low empties the
purse, which stops the spending, not the steering, and the demand that steers is that of all wanted rows, kept or not.

Rows of a request that is exempt (``"capture": "full"``) are not thinned and are paid for first; they may spend half a
window's budget in advance, and beyond that are left out until it is paid back.  The few rows of a canary are owed: they are
always summarised, whole, and what they cost the others have less.  A single cost that no purse could hold (a
compilation) is forgiven beyond a window's budget, so that capture pauses for seconds and not for minutes.

What is counted is time in the hooks on the engine's thread, and processor time of the helper beside it.  No clock of its own,
no collective: every rank decides alone.  The rows that a rank keeps are those with the lowest hash
(:mod:`headwatch.capture.plan.thinning`), so the rows of the rank that keeps fewest are on all of them, and each rank's weights
are right for its own heads.  Rows that come while the purse is empty have no chance, and no weight speaks for them: a few in a
hundred under a load that is too high.

Cost: a few microseconds a step, two more a candidate row.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwatch.capture.plan.cost import CostModel
from headwatch.capture.plan.thinning import Choice, choose

if TYPE_CHECKING:
    from collections.abc import Sequence

WINDOW_SECONDS = 10.0
"""The stretch of step time over which the share holds."""
INCOME = 0.8
"""Part of the share that is paid in; the rest pays for a purse that was full, and for one overdraft."""
EXEMPT_DEBT = 0.5
"""Part of a window's budget that exempt rows may spend in advance."""
STRIDES = tuple(sorted([1, *(1 << n for n in range(1, 13)), *(3 << n for n in range(11))]))
"""1, 2, 3, 4, 6, 8, 12 … 4096."""
SPIKE = 1.5
FAST_SECONDS, SLOW_SECONDS = 3.0, 15.0
"""Time constants of the demand; the larger of the two estimates counts, so that it rises fast and falls slowly."""
CALM_SECONDS = 5.0
"""Step time for which half the stride must have been enough before it is halved."""
CALM_MARGIN = 0.8


@dataclass(frozen=True, slots=True)
class Admission:
    """What of a step's candidate rows is summarised."""

    kept: list[int]
    """Indices among the candidates, ascending."""
    weights: list[float]
    """[kept]: one over the probability of each row and layer."""
    over_limit: int
    """Rows that only the limit of a step left out."""
    layer_stride: int = 1
    """Every how many layers one is summarised in this step."""


@dataclass(slots=True)
class _Rate:
    """Seconds per second of step time, over a short and a long memory."""

    fast: float = 0.0
    slow: float = 0.0

    @property
    def now(self) -> float:
        """Return the long memory, unless the short one says that a spike has come."""
        return self.fast if self.fast > SPIKE * self.slow else self.slow

    def add(self, seconds: float, step_seconds: float) -> None:
        self.fast += _approach(self.fast, seconds, step_seconds, FAST_SECONDS)
        self.slow += _approach(self.slow, seconds, step_seconds, SLOW_SECONDS)


@dataclass(slots=True)
class _Step:
    """What was admitted in the step in progress."""

    demand: float = 0.0
    exempt: float = 0.0
    rows: int = 0
    tokens: int = 0
    layers: float = 0.0
    seen: bool = True
    """Whether its candidate rows are known."""


@dataclass(slots=True)
class Budget:
    """Holds the cost of capture below *share* of step time.  Not safe from threads.  A share of 1 is no budget."""

    share: float
    layers: int
    """Layers that this worker captures."""
    cost: CostModel = field(default_factory=CostModel)
    stride: int = 1
    """The factor by which rows are thinned."""
    purse_seconds: float = field(init=False)
    _demand: _Rate = field(default_factory=_Rate)
    """Predicted cost of all candidate rows that may be thinned."""
    _exempt: _Rate = field(default_factory=_Rate)
    _idle: _Rate = field(default_factory=_Rate)
    """Cost of steps without rows: hooks and plans."""
    _dearest: float = 0.0
    """Predicted cost of the dearest row of late; it fades within a window."""
    _calm_seconds: float = 0.0
    _step: _Step = field(default_factory=_Step)

    def __post_init__(self) -> None:
        self.purse_seconds = self._depth

    def passes_over(self) -> bool:
        """Return whether the purse is empty and the step that begins is not to be looked at, but for exempt rows.

        Its rows are neither planned nor counted as thinned, and say nothing of the demand.
        """
        self._step.seen = self.share >= 1.0 or self.purse_seconds > 0.0
        return not self._step.seen

    def admit(
        self, tokens: Sequence[int], numbers: Sequence[float], exempt: Sequence[bool], limit: int, owed: Sequence[bool] = ()
    ) -> Admission:
        """Return which of a step's candidate rows are summarised, at most *limit*.

        For each candidate: how many *tokens* it sees, its number by hash, whether it is *exempt* from thinning, and whether
        it is *owed*, which only the limit can refuse.
        """
        first = [row for row, value in enumerate(owed) if value][:limit]
        if not first:
            return self._admit(tokens, numbers, exempt, limit)
        rest = [row for row, value in enumerate(owed) if not value]
        others = self._admit(
            [tokens[row] for row in rest], [numbers[row] for row in rest], [exempt[row] for row in rest], limit - len(first),
            [tokens[row] for row in first],
        )  # fmt: skip
        weights = dict(zip(others.kept, others.weights, strict=True))
        pairs = sorted([(row, 1.0) for row in first] + [(rest[place], weight) for place, weight in weights.items()])
        over_limit = others.over_limit + sum(owed) - len(first)
        return Admission([row for row, _ in pairs], [weight for _, weight in pairs], over_limit)

    def _admit(
        self, tokens: Sequence[int], numbers: Sequence[float], exempt: Sequence[bool], limit: int, owed: Sequence[int] = ()
    ) -> Admission:
        """Return what is admitted beside rows that see *owed* tokens and are summarised come what may."""
        if self.share >= 1.0:
            return _admission(choose(numbers, [0.0] * len(numbers), probability=1.0, funds=1.0, limit=limit))
        costs = [self.cost.row(count) * self.layers for count in tokens]
        stride = 1 if owed or any(exempt) else self._layer_stride(max(costs, default=0.0))
        costs = [seconds / stride for seconds in costs]
        self._dearest = max([self._dearest, *costs])
        self._step = _Step(layers=self.layers / stride)
        owed_seconds = sum(self.cost.row(count) * self.layers for count in owed)
        choice = self._choose(costs, numbers, exempt, limit, owed_seconds)
        self._step.exempt += owed_seconds
        self._step.rows = len(choice.kept) + len(owed)
        self._step.tokens = sum(tokens[row] for row in choice.kept) + sum(owed)
        return _admission(choice, stride)

    def settle(self, step_seconds: float, spent_seconds: float, *, ordinary: bool = True) -> None:
        """Pay for a step that took *step_seconds* in all and *spent_seconds* of them in capture.

        What a step that is not *ordinary* cost (a self-check, an error) is paid, but says nothing of other rows.
        """
        step, self._step = self._step, _Step()
        if self.share >= 1.0:
            return
        step_seconds, spent_seconds = max(step_seconds, 0.0), max(spent_seconds, 0.0)  # a clock may jump
        purse = self.purse_seconds + self._income * step_seconds - spent_seconds
        self.purse_seconds = min(max(purse, -self.share * WINDOW_SECONDS), self._depth)
        self._dearest *= math.exp(-step_seconds / WINDOW_SECONDS)
        if step.seen:
            self._demand.add(step.demand, step_seconds)
            self._exempt.add(step.exempt, step_seconds)
        if not step.rows:
            self._idle.add(spent_seconds, step_seconds)
        elif ordinary:
            self.cost.learn(step.rows, step.tokens, step.layers, spent_seconds)
        self._steer(step_seconds)

    def _choose(
        self, costs: list[float], numbers: Sequence[float], exempt: Sequence[bool], limit: int, owed_seconds: float
    ) -> Choice:
        funds = min(self.purse_seconds, self._depth) - owed_seconds
        if not any(exempt):
            self._step.demand = sum(costs)
            return choose(numbers, costs, probability=self._probability(), funds=funds, limit=limit)
        groups = [[row for row, value in enumerate(exempt) if value is wanted] for wanted in (True, False)]
        picked = [([numbers[row] for row in rows], [costs[row] for row in rows]) for rows in groups]
        debt = EXEMPT_DEBT * self.share * WINDOW_SECONDS
        full = choose(*picked[0], probability=1.0, funds=funds + debt, limit=limit)
        self._step.exempt = sum(picked[0][1][row] for row in full.kept)
        self._step.demand = sum(picked[1][1])
        rest = choose(
            *picked[1], probability=self._probability(), funds=funds - self._step.exempt, limit=limit - len(full.kept)
        )
        return Choice(
            [groups[0][row] for row in full.kept] + [groups[1][row] for row in rest.kept],
            full.weights + rest.weights,
            full.over_limit + rest.over_limit,
        )

    def _steer(self, step_seconds: float) -> None:
        money = max(self._income - self._idle.slow - self._exempt.slow, self._income / STRIDES[-1])
        needed = min(self._demand.now / money, STRIDES[-1])
        if needed > self.stride:
            self.stride = STRIDES[bisect_left(STRIDES, needed)]
            self._calm_seconds = 0.0
            return
        lower = STRIDES[max(bisect_left(STRIDES, self.stride) - 1, 0)]
        if lower == self.stride or needed >= CALM_MARGIN * lower:
            self._calm_seconds = 0.0
            return
        self._calm_seconds += step_seconds
        if self._calm_seconds >= CALM_SECONDS:
            self.stride = lower
            self._calm_seconds = 0.0

    def _probability(self) -> float:
        """Return the share of rows to keep: less than the stride says while the purse is low, so that it seldom empties."""
        low = 1 if self.purse_seconds >= self._depth / 2 else 2 if self.purse_seconds >= self._depth / 4 else 4
        return 1.0 / (self.stride * low)

    def _layer_stride(self, row_seconds: float) -> int:
        """Return every how many layers one is summarised, so that the dearest row overdraws no more than it may."""
        stride = 1
        while row_seconds > self._spare / 2 * stride and 2 * stride <= self.layers:
            stride *= 2
        return stride

    @property
    def _income(self) -> float:
        return INCOME * self.share

    @property
    def _spare(self) -> float:
        """What a window's budget has over its income: for a purse that was full, and for one overdraft."""
        return (1.0 - INCOME) * self.share * WINDOW_SECONDS

    @property
    def _depth(self) -> float:
        return self._spare - min(self._dearest, self._spare / 2)


def _approach(value: float, seconds: float, step_seconds: float, constant: float) -> float:
    """Return by how much an average over *constant* seconds moves with a step of *step_seconds* that cost *seconds*."""
    return (seconds - value * step_seconds) * -math.expm1(-step_seconds / constant) / step_seconds if step_seconds > 0 else 0.0


def _admission(choice: Choice, stride: int = 1) -> Admission:
    pairs = sorted(zip(choice.kept, choice.weights, strict=True))
    return Admission([row for row, _ in pairs], [weight * stride for _, weight in pairs], choice.over_limit, stride)
