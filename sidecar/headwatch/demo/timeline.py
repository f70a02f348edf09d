"""The report's picture of requests as SVG text: one mark a request over time, phases as bands.

A request that has no ratio is drawn on a line of its own below the axis, never at zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from headwatch.pictures.figures import open_svg, text_at, ticks_between

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT = 1040, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 34, 64
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_ABSENT_Y = _TOP + _PLOT_HEIGHT + 18


@dataclass(frozen=True, slots=True)
class Point:
    """One request on the timeline."""

    time_ns: int
    value: float | None
    """None: the request has no ratio."""
    phase: str
    label: str


@dataclass(frozen=True, slots=True)
class _Axes:
    """From time and value to pixels."""

    first_ns: int
    span_ns: int
    low: float
    high: float

    def x(self, time_ns: float) -> float:
        return _LEFT + (time_ns - self.first_ns) / self.span_ns * _PLOT_WIDTH

    def y(self, value: float) -> float:
        return _TOP + (self.high - value) / (self.high - self.low) * _PLOT_HEIGHT


def timeline(title: str, points: Sequence[Point], colours: Mapping[str, str]) -> str:
    """Return the timeline of *points*; *colours* maps each phase, in order, to its colour."""
    head = open_svg(_WIDTH, _HEIGHT, title)
    if not points:
        return head + text_at(_LEFT, _TOP + 20, "no requests", "tick") + "</svg>"
    times = [point.time_ns for point in points]
    axes = _Axes(min(times), max(max(times) - min(times), 1), *_padded([p.value for p in points if p.value is not None]))
    parts = [
        *(_band(axes, phase, colour, points) for phase, colour in colours.items()),
        *_grid(axes, with_absent=any(point.value is None for point in points)),
        *(_mark(axes, point, colours[point.phase]) for point in points),
    ]
    return "".join([head, *parts, "</svg>"])


def _band(axes: _Axes, phase: str, colour: str, points: Sequence[Point]) -> str:
    times = [point.time_ns for point in points if point.phase == phase]
    if not times:
        return ""
    start, end = axes.x(min(times)), axes.x(max(times))
    name = text_at((start + end) / 2, _TOP - 10, phase.replace("_", " "), "title middle")
    return (f'<rect x="{start - 3:.1f}" y="{_TOP}" width="{end - start + 6:.1f}" height="{_PLOT_HEIGHT + 26}" '
            f'fill="{colour}" opacity="0.10"/>{name}')


def _grid(axes: _Axes, *, with_absent: bool) -> list[str]:
    parts = []
    for tick in ticks_between(axes.low, axes.high, 5):
        y = axes.y(tick)
        parts += [f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
                  text_at(_LEFT - 8, y + 4, f"{tick:g}", "tick end")]
    seconds = ticks_between(0.0, axes.span_ns / 1e9, 8)
    parts += [text_at(axes.x(axes.first_ns + tick * 1e9), _HEIGHT - 20, f"{tick:g}", "tick middle") for tick in seconds]
    parts.append(text_at(_LEFT + _PLOT_WIDTH / 2, _HEIGHT - 4, "seconds since the first request", "tick middle"))
    if with_absent:
        parts.append(text_at(_LEFT - 8, _ABSENT_Y + 4, "no ratio", "tick end"))
    return parts


def _mark(axes: _Axes, point: Point, colour: str) -> str:
    x, tip = axes.x(point.time_ns), f"<title>{escape(point.label)}</title>"
    if point.value is None:
        return (f'<rect x="{x - 3:.1f}" y="{_ABSENT_Y - 3}" width="6" height="6" fill="none" stroke="{colour}" '
                f'stroke-width="1.4">{tip}</rect>')
    return (f'<circle cx="{x:.1f}" cy="{axes.y(point.value):.1f}" r="3.6" fill="{colour}" fill-opacity="0.85">'
            f"{tip}</circle>")


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = (high - low) * 0.08 or 0.05
    return low - margin, high + margin
