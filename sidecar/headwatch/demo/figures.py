"""The report's pictures as SVG text: a heatmap over layers and heads, its colour key, and the timeline of requests.

Plain functions from numbers to a string.  Every mark has a ``<title>``, which browsers show under the pointer and screen
readers read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from headwatch.demo.colours import UNDEFINED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Matrix = list[list[float | None]]
"""[layers][heads]; None where undefined."""

_CELL_WIDTH, _CELL_HEIGHT = 24, 13
_LEFT, _TOP = 44, 42


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear colour scale over [low, high]."""

    low: float
    high: float
    colour: Callable[[float], str]

    def __call__(self, value: float | None) -> str:
        """Return the colour of *value*."""
        if value is None or math.isnan(value):
            return UNDEFINED
        return self.colour((value - self.low) / (self.high - self.low) if self.high > self.low else 0.5)


@dataclass(frozen=True, slots=True)
class Point:
    """One request on the timeline."""

    time_ns: int
    value: float | None
    """None: the request has no ratio."""
    phase: str
    label: str


def heatmap(
    title: str, layers: Sequence[int], values: Matrix, scale: Scale, marked: frozenset[tuple[int, int]] = frozenset()
) -> str:
    """Return one heatmap, layers downwards and heads to the right; *marked* (layer, head) cells get an outline."""
    heads = max((len(row) for row in values), default=0)
    width, height = _LEFT + heads * _CELL_WIDTH + 6, _TOP + len(layers) * _CELL_HEIGHT + 6
    parts = [_open(width, height, title), _text(_LEFT, 14, title, "title")]
    parts += [_text(_LEFT + (head + 0.5) * _CELL_WIDTH, _TOP - 6, str(head), "tick middle") for head in range(heads)]
    parts.append(_text(_LEFT - 8, _TOP - 6, "head", "tick end"))
    outlines = []
    for row, layer in enumerate(layers):
        y = _TOP + row * _CELL_HEIGHT
        if row % 5 == 0 or row == len(layers) - 1:
            parts.append(_text(_LEFT - 8, y + 10, f"layer {layer}" if row == 0 else str(layer), "tick end"))
        for head, value in enumerate(values[row]):
            x = _LEFT + head * _CELL_WIDTH
            shown = "undefined" if value is None else f"{value:.3f}"
            tip = f"layer {layer}, head {head}: {shown}" + (", retrieval head" if (layer, head) in marked else "")
            parts.append(f'<rect x="{x}" y="{y}" width="{_CELL_WIDTH - 1}" height="{_CELL_HEIGHT - 1}" '
                         f'fill="{scale(value)}"><title>{tip}</title></rect>')
            if (layer, head) in marked:
                outlines.append(f'<rect class="mark" x="{x - 0.5}" y="{y - 0.5}" width="{_CELL_WIDTH}" '
                                f'height="{_CELL_HEIGHT}"/>')
    return "".join([*parts, *outlines, "</svg>"])


def colour_key(title: str, scale: Scale, ticks: Sequence[float]) -> str:
    """Return the key of *scale*: a bar from low to high with *ticks* below it."""
    bar, steps, margin = 300, 60, 28
    parts = [_open(bar + 2 * margin, 46, title), _text(margin, 11, title, "tick")]
    for step in range(steps):
        value = scale.low + (scale.high - scale.low) * (step + 0.5) / steps
        parts.append(f'<rect x="{margin + step * bar / steps:.1f}" y="16" width="{bar / steps + 0.5:.1f}" height="12" '
                     f'fill="{scale(value)}"/>')
    for tick in ticks:
        x = margin + (tick - scale.low) / (scale.high - scale.low) * bar
        parts.append(_text(x, 42, f"{tick:g}", "tick middle"))
    return "".join([*parts, "</svg>"])


def timeline(title: str, points: Sequence[Point], phases: Sequence[str], colours: Sequence[str]) -> str:
    """Return ratio over time, one mark a request; phases are bands, requests without a ratio lie on a line of their own."""
    width, height, left, top, bottom = 1040, 300, 56, 34, 64
    plot_width, plot_height = width - left - 12, height - top - bottom
    parts = [_open(width, height, title)]
    if not points:
        return "".join([*parts, _text(left, top + 20, "no requests", "tick"), "</svg>"])
    first = min(point.time_ns for point in points)
    span = max(max(point.time_ns for point in points) - first, 1)
    defined = [point.value for point in points if point.value is not None]
    low, high = _padded(defined)

    def x_of(time_ns: int) -> float:
        return left + (time_ns - first) / span * plot_width

    def y_of(value: float) -> float:
        return top + (high - value) / (high - low) * plot_height

    for phase, colour in zip(phases, colours, strict=True):
        times = [point.time_ns for point in points if point.phase == phase]
        if times:
            x, end = x_of(min(times)), x_of(max(times))
            parts.append(f'<rect x="{x - 3:.1f}" y="{top}" width="{end - x + 6:.1f}" height="{plot_height + 26}" '
                         f'fill="{colour}" opacity="0.10"/>')
            parts.append(_text((x + end) / 2, top - 10, phase.replace("_", " "), "title middle"))
    for tick in ticks_between(low, high, 5):
        y = y_of(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 12}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 8, y + 4, f"{tick:g}", "tick end"))
    absent_y = top + plot_height + 18
    if len(defined) < len(points):
        parts.append(_text(left - 8, absent_y + 4, "no ratio", "tick end"))
    for point in points:
        x, colour = x_of(point.time_ns), colours[list(phases).index(point.phase)]
        if point.value is None:
            parts.append(f'<rect x="{x - 3:.1f}" y="{absent_y - 3}" width="6" height="6" fill="none" stroke="{colour}" '
                         f'stroke-width="1.4"><title>{escape(point.label)}</title></rect>')
        else:
            parts.append(f'<circle cx="{x:.1f}" cy="{y_of(point.value):.1f}" r="3.6" fill="{colour}" '
                         f'fill-opacity="0.85"><title>{escape(point.label)}</title></circle>')
    for tick in ticks_between(0.0, span / 1e9, 8):
        parts.append(_text(left + tick * 1e9 / span * plot_width, height - 20, f"{tick:g}", "tick middle"))
    parts.append(_text(left + plot_width / 2, height - 4, "seconds since the first request ended", "tick middle"))
    return "".join([*parts, "</svg>"])


def ticks_between(low: float, high: float, about: int) -> list[float]:
    """Return round numbers in [low, high], *about* so many."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    return [round(index * step, 10) for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = (high - low) * 0.08 or 0.05
    return low - margin, high + margin


def _open(width: float, height: float, title: str) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}"><title>{escape(title)}</title>')


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'
