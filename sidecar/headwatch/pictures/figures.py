"""Pictures of heads for reports, as SVG text: a heatmap over layers and heads, and its colour key.

Plain functions from numbers to a string.  Every mark has a ``<title>``, which browsers show under the pointer and screen
readers read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from headwatch.pictures.colours import UNDEFINED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Matrix = list[list[float | None]]
"""[layers][heads]; None where undefined."""

_CELL_WIDTH, _CELL_HEIGHT = 24, 13
_LEFT, _TOP = 56, 42


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


def heatmap(
    title: str, layers: Sequence[int], values: Matrix, scale: Scale, marked: frozenset[tuple[int, int]] = frozenset()
) -> str:
    """Return one heatmap, layers downwards and heads to the right; *marked* (layer, head) cells get an outline."""
    heads = max((len(row) for row in values), default=0)
    width, height = _LEFT + heads * _CELL_WIDTH + 6, _TOP + len(layers) * _CELL_HEIGHT + 6
    parts = [open_svg(width, height, title), text_at(_LEFT, 14, title, "title")]
    parts += [text_at(_LEFT + (head + 0.5) * _CELL_WIDTH, _TOP - 6, str(head), "tick middle") for head in range(heads)]
    parts.append(text_at(_LEFT - 8, _TOP - 6, "head", "tick end"))
    outlines = []
    for row, layer in enumerate(layers):
        y = _TOP + row * _CELL_HEIGHT
        if row % 5 == 0 or row == len(layers) - 1:
            parts.append(text_at(_LEFT - 8, y + 10, f"layer {layer}" if row == 0 else str(layer), "tick end"))
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
    bar, steps, margin = 300, 60, _LEFT
    parts = [open_svg(bar + 2 * margin, 46, title), text_at(margin, 11, title, "tick")]
    for step in range(steps):
        value = scale.low + (scale.high - scale.low) * (step + 0.5) / steps
        parts.append(f'<rect x="{margin + step * bar / steps:.1f}" y="16" width="{bar / steps + 0.5:.1f}" height="12" '
                     f'fill="{scale(value)}"/>')
    for tick in ticks:
        x = margin + (tick - scale.low) / (scale.high - scale.low) * bar
        parts.append(text_at(x, 42, f"{tick:g}", "tick middle"))
    return "".join([*parts, "</svg>"])


def ticks_between(low: float, high: float, about: int) -> list[float]:
    """Return round numbers in [low, high], *about* so many."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda item: abs(math.log(item / raw)))
    return [round(index * step, 10) for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def open_svg(width: float, height: float, title: str) -> str:
    """Return the opening of a picture of that size in pixels."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}"><title>{escape(title)}</title>')


def text_at(x: float, y: float, text: str, kind: str) -> str:
    """Return *text* at a place; *kind* are classes of a report's style sheet (``tick title middle end``)."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'
