"""The picture of a budget trace: what all rows would have cost, what capture took, and the stride that held it there."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.budget import SECONDS, SHARE, SPIKES, window_shares
from headwatch.capture.plan.budget import WINDOW_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.budget import Trace

WIDTH, LEFT, RIGHT = 860, 62, 16
PANEL, GAP, TOP = 130, 46, 46
POINTS = 480
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#334}.title{font-size:15px;font-weight:600}.tick{font-size:11px;fill:#667}"
    ".grid{stroke:#dde}.line{fill:none;stroke:#1b6ca8;stroke-width:1.6}.wish{fill:none;stroke:#b0651d;stroke-width:1.4}"
    ".limit{stroke:#b3261e;stroke-dasharray:6 4;stroke-width:1.4}.spike{fill:#f4ead8}"
)


class _Panel:
    """One chart over time, with an axis of its own."""

    def __init__(self, number: int, title: str, low: float, high: float, *, log: bool = False) -> None:
        self._top = TOP + number * (PANEL + GAP)
        self._scale = np.log10 if log else np.asarray
        self._low, self._high = float(self._scale(low)), float(self._scale(high))
        self.parts = [
            f'<rect class="spike" x="{x_of(start):.1f}" y="{self._top}" width="{x_of(end) - x_of(start):.1f}" '
            f'height="{PANEL}"/>'
            for start, end, *_ in SPIKES
        ]
        self.parts.append(f'<text x="{LEFT}" y="{self._top - 8}">{escape(title)}</text>')

    def y_of(self, value: float) -> float:
        """Return the place of *value*, kept inside the panel."""
        share = (float(self._scale(value)) - self._low) / (self._high - self._low)
        return self._top + PANEL * (1.0 - min(max(share, 0.0), 1.0))

    def tick(self, value: float, text: str) -> None:
        """Draw a grid line at *value*, named *text*."""
        y = self.y_of(value)
        self.parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                          f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')

    def limit(self, value: float) -> None:
        """Draw the line that must not be crossed."""
        y = self.y_of(value)
        self.parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')

    def line(self, times: Sequence[float], values: Sequence[float], kind: str) -> None:
        """Draw *values* over *times*."""
        points = " ".join(f"{x_of(t):.1f},{self.y_of(v):.1f}" for t, v in zip(times, values, strict=True))
        self.parts.append(f'<polyline class="{kind}" points="{points}"/>')


def x_of(seconds: float) -> float:
    """Return the place of a time."""
    return LEFT + (WIDTH - LEFT - RIGHT) * min(seconds, SECONDS) / SECONDS


def plot(title: str, trace: Trace) -> str:
    """Return the picture as SVG."""
    ends = np.cumsum(trace.step_seconds)
    times = np.linspace(WINDOW_SECONDS, SECONDS - WINDOW_SECONDS, POINTS)
    at = np.searchsorted(ends, times).clip(0, len(ends) - 1)
    shares = window_shares(trace)
    starts = np.searchsorted(ends, times - WINDOW_SECONDS).clip(0, len(shares) - 1)
    steps, wishes = np.cumsum(trace.step_seconds), np.cumsum(trace.uncapped_seconds)
    wish = (wishes[at] - wishes[starts]) / (steps[at] - steps[starts])

    demand = _Panel(0, "every wanted row would take, as a share of step time (10 s windows, logarithmic)", 0.001, 1.0, log=True)
    for value, text in ((0.001, "0.1 %"), (0.01, "1 %"), (0.1, "10 %"), (1.0, "100 %")):
        demand.tick(value, text)
    demand.limit(SHARE)
    demand.line(times.tolist(), np.maximum(wish, 1e-4).tolist(), "wish")

    taken = _Panel(1, "capture takes (10 s windows); dashed: its budget", 0.0, 1.5 * SHARE)
    for value in (0.0, SHARE / 2, SHARE):
        taken.tick(value, f"{value * 100:g} %")
    taken.limit(SHARE)
    taken.line(times.tolist(), shares[starts].tolist(), "line")

    highest = max(trace.stride)
    stride = _Panel(2, "stride: one wanted row in so many is kept (logarithmic)", 1, max(2 * highest, 4), log=True)
    value = 1
    while value <= 2 * highest:
        stride.tick(value, str(value))
        value *= 4
    stride.line(times.tolist(), np.array(trace.stride)[at].tolist(), "line")

    bottom = TOP + 3 * PANEL + 2 * GAP
    labels = [
        f'<text class="tick" x="{x_of(second):.1f}" y="{bottom + 18}" text-anchor="middle">{second:g} s</text>'
        for second in range(0, int(SECONDS) + 1, 120)
    ]
    names = [
        f'<text class="tick" x="{x_of((start + end) / 2):.1f}" y="{bottom + 36}" text-anchor="middle">'
        f'{escape(_spike(requests, context))}</text>'
        for start, end, requests, context in SPIKES
    ]
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{WIDTH}" height="{bottom + 46}" '
            f'viewBox="0 0 {WIDTH} {bottom + 46}"><title>{escape(title)}</title><style>{STYLE}</style>'
            f'<rect width="100%" height="100%" fill="#fff"/><text class="title" x="{LEFT}" y="20">{escape(title)}</text>')
    return "".join([head, *demand.parts, *taken.parts, *stride.parts, *labels, *names, "</svg>\n"])


def _spike(requests: int, context: int) -> str:
    parts = [f"{requests} times the requests"] if requests > 1 else []
    parts += [f"{context} times the context"] if context > 1 else []
    return ", ".join(parts)
