"""The pictures of an incident's report as SVG text: figures over time, and shares of documents before and now.

Plain functions from numbers to a string.  Every mark has a ``<title>``, which browsers show under the pointer and screen
readers read; before and now differ in lightness and in place, not in hue alone.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

from headwatch.incident.paint import cut
from headwatch.pictures.figures import open_svg, text_at, ticks_between

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch.findings import DocumentExhibit
    from headwatch.incident.series import Line

BEFORE, NOW = "#8aa4bd", "#d55e00"
"""A pale blue, and vermillion of the Okabe-Ito palette."""
_WIDTH, _HEIGHT = 1000, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 30, 30
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_SHORT_NS = 15 * 60 * 10**9
"""Below it a time without seconds would stand at several ticks."""
_BAR, _ROW, _NAME, _BARS = 12, 38, 300, 480


def run_of(line: Line, since_ns: int, paged_ns: int) -> str:
    """Return *line* over time, with the beginning and the page marked; a window without a value is a gap, never zero."""
    times = [time_ns for time_ns, _ in line.points]
    values = [value for _, value in line.points if value is not None]
    first, span = min(times), max(max(times) - min(times), 1)
    low, high = min(values), max(values)
    margin = (high - low) * 0.12 or abs(high) * 0.05 or 0.05
    low, high = low - margin, high + margin

    def x(time_ns: float) -> float:
        return _LEFT + min(max((time_ns - first) / span, 0.0), 1.0) * _PLOT_WIDTH

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * _PLOT_HEIGHT

    parts = [open_svg(_WIDTH, _HEIGHT, line.name)]
    parts.append(f'<rect x="{x(since_ns):.1f}" y="{_TOP}" width="{_LEFT + _PLOT_WIDTH - x(since_ns):.1f}" '
                 f'height="{_PLOT_HEIGHT}" fill="{NOW}" opacity="0.08"/>')  # fmt: skip
    for tick in ticks_between(low, high, 4):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(text_at(_LEFT - 8, y(tick) + 4, f"{tick:g}", "tick end"))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        place = "middle" if 0 < share < 1 else "end" if share else ""
        time = clock(first + share * span, seconds=span < _SHORT_NS)
        parts.append(text_at(_LEFT + share * _PLOT_WIDTH, _HEIGHT - 10, time, f"tick {place}"))
    for mark, name, aside, kind in ((since_ns, "began", -4, "tick end"), (paged_ns, "found", 4, "tick")):
        at = f"{x(mark):.1f}"
        parts.append(f'<line class="mark" x1="{at}" x2="{at}" y1="{_TOP - 6}" y2="{_TOP + _PLOT_HEIGHT}"/>')
        parts.append(text_at(x(mark) + aside, _TOP - 9, name, kind))
    parts += _curve(line, since_ns, x, y)
    return "".join([*parts, "</svg>"])


def _curve(line: Line, since_ns: int, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    pieces: list[list[tuple[int, float]]] = [[]]
    for time_ns, value in line.points:
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append((time_ns, value))
    parts = []
    for piece in pieces:
        if len(piece) > 1:
            path = " ".join(f"{x(time_ns):.1f},{y(value):.1f}" for time_ns, value in piece)
            parts.append(f'<polyline class="curve" points="{path}"/>')
        parts += [
            f'<circle cx="{x(time_ns):.1f}" cy="{y(value):.1f}" r="2.6" fill="{NOW if time_ns > since_ns else BEFORE}">'
            f"<title>{clock(time_ns, seconds=True)} UTC: {value:.4g}</title></circle>"
            for time_ns, value in piece
        ]
    return parts


def shares(documents: Sequence[DocumentExhibit]) -> str:
    """Return each document's share of what the examples read, before and now, as two bars."""
    height = 26 + len(documents) * _ROW
    largest = max((share for one in documents for share in (one.share_before, one.share_after) if share), default=1.0)
    parts = [open_svg(_NAME + _BARS + 160, height, "shares of documents before and now")]
    for place, (colour, name) in enumerate(((BEFORE, "before"), (NOW, "now"))):
        parts.append(f'<rect x="{_NAME + place * 80}" y="4" width="11" height="11" fill="{colour}"/>')
        parts.append(text_at(_NAME + place * 80 + 16, 14, name, "tick"))
    for row, one in enumerate(documents):
        top = 26 + row * _ROW
        parts.append(text_at(_NAME - 10, top + 11, cut(one.id, 44), "name end"))
        about = " ".join(part for part in (one.source, one.version, f"{one.requests} requests") if part)
        parts.append(text_at(_NAME - 10, top + 24, cut(about, 50), "tick end"))
        for place, (share, colour, name) in enumerate(
            ((one.share_before, BEFORE, "before"), (one.share_after, NOW, "now"))
        ):
            y = top + place * (_BAR + 1)
            width = 0.0 if share is None else max(share, 0.0) / largest * _BARS
            shown = "no request has documents" if share is None else f"{share:.1%}"
            parts.append(f'<rect x="{_NAME}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}">'
                         f"<title>{escape(one.id)}, {name}: {shown}</title></rect>")  # fmt: skip
            parts.append(text_at(_NAME + width + 6, y + 10, shown, "tick"))
    return "".join([*parts, "</svg>"])


def clock(time_ns: float, *, seconds: bool = False) -> str:
    """Return a time of day, UTC."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%H:%M:%S" if seconds else "%H:%M")
