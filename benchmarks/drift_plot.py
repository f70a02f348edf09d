"""The pictures of docs/method.md: false alarms over those promised, and delays beside those of the best peer."""

from __future__ import annotations

from html import escape
from math import log10
from typing import Any

WIDTH = 860
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#334}.title{font-size:15px;font-weight:600}.tick{font-size:11px;fill:#667}"
    ".grid{stroke:#dde}.promise{stroke:#2f6f4f;stroke-dasharray:6 4;stroke-width:1.4}.bar{stroke:#b3261e;stroke-width:1.4}"
    ".equal{stroke:#889;stroke-width:1.2}.line{stroke-width:2.4;stroke-linecap:round}"
)
COLOURS = ("#9a6fb0", "#1b6ca8", "#b0651d")
LEFT, RIGHT, TOP, ROW = 260, 20, 60, 26


def nulls(cells: list[dict[str, Any]]) -> str:
    """Return the picture of the null cells: a dot is what was seen, its line reaches to the upper limit."""
    families = list(dict.fromkeys(cell["family"] for cell in cells))
    baselines = list(dict.fromkeys(cell["baseline"] for cell in cells))
    counted = [cell for cell in cells if cell["paging"]]
    most = max(2.2, *(float(cell["upper"]) for cell in counted))
    bottom = TOP + ROW * len(families)

    def x_of(ratio: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ratio / most

    parts = [_text(LEFT, 20, "False alarms over those that were promised", "title")]
    for place, baseline in enumerate(baselines):
        parts.append(_dot(LEFT + 140 * place, 36, COLOURS[place]) + _text(LEFT + 8 + 140 * place, 40, f"baseline {baseline}"))
    for ratio in (0.0, 0.5, 1.0, 1.5, 2.0):
        kind = {1.0: "promise", 2.0: "bar"}.get(ratio, "grid")
        parts.append(f'<line class="{kind}" x1="{x_of(ratio):.1f}" x2="{x_of(ratio):.1f}" y1="{TOP - 8}" y2="{bottom}"/>')
        parts.append(_text(x_of(ratio), bottom + 16, f"{ratio:g}", "tick", "middle"))
    for row, family in enumerate(families):
        parts.append(_text(LEFT - 10, TOP + ROW * row + 14, family, "", "end"))
    for cell in counted:
        y = TOP + ROW * families.index(cell["family"]) + 4 + 7 * baselines.index(cell["baseline"])
        colour = COLOURS[baselines.index(cell["baseline"])]
        parts.append(
            f'<line class="line" stroke="{colour}" x1="{x_of(cell["ratio"]):.1f}" x2="{x_of(cell["upper"]):.1f}" '
            f'y1="{y}" y2="{y}" opacity=".4"/>' + _dot(x_of(cell["ratio"]), y, colour)
        )
    return _picture("False alarms over those that were promised, by null family and length of the baseline", bottom + 28, parts)


def delays(fixed: list[dict[str, Any]], own: list[dict[str, Any]]) -> str:
    """Return the picture of the delay cells: headwatch's delay over that of the best peer."""
    side, left, top, longest = 380.0, 60.0, 60.0, 1440.0

    def place(delay: float) -> float:
        return side * log10(max(delay, 1.0)) / log10(longest)

    parts = []
    panels = (("one limit for all nulls, as in production", fixed), ("a limit for the null of the cell alone", own))
    for panel, (title, cells) in enumerate(panels):
        x0 = left + panel * (side + 40)
        parts.append(_text(x0, 44, title))
        for tick in (1, 10, 100, 1000):
            at = place(tick)
            parts.append(f'<line class="grid" x1="{x0:.1f}" x2="{x0 + side:.1f}" y1="{top + side - at:.1f}" '
                         f'y2="{top + side - at:.1f}"/>')
            parts.append(f'<line class="grid" x1="{x0 + at:.1f}" x2="{x0 + at:.1f}" y1="{top}" y2="{top + side}"/>')
            parts.append(_text(x0 + at, top + side + 16, f"{tick:,}", "tick", "middle"))
            if not panel:
                parts.append(_text(x0 - 6, top + side - at + 4, f"{tick:,}", "tick", "end"))
        parts.append(f'<line class="equal" x1="{x0}" x2="{x0 + side}" y1="{top + side}" y2="{top}"/>')
        rise = place(1.25)
        parts.append(f'<line class="bar" x1="{x0}" x2="{x0 + side - rise:.1f}" y1="{top + side - rise:.1f}" y2="{top}"/>')
        for cell in cells:
            if cell["headwatch"] is None or cell["best_peer_delay"] is None:
                continue
            colour = COLOURS[1] if cell["null"] == "independent" else COLOURS[2]
            parts.append(_dot(x0 + place(cell["best_peer_delay"]), top + side - place(cell["headwatch"]), colour))
    parts.append(_text(left, 20, "Median delay of headwatch (up) and of the best peer (right), windows; cells that both found",
                       "title"))
    bottom = top + side
    parts.append(_dot(left, bottom + 34, COLOURS[1]) + _text(left + 10, bottom + 38, "independent heads"))
    parts.append(_dot(left + 170, bottom + 34, COLOURS[2]) + _text(left + 180, bottom + 38, "slow heads with sampling noise"))
    parts.append(_text(left + 420, bottom + 38, "below grey: headwatch is faster; above red: slower by 1.25", "tick"))
    return _picture("Median delays of headwatch and of the best peer", bottom + 52, parts)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" fill="{colour}"/>'


def _picture(title: str, height: float, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {WIDTH} {height:g}"><title>{escape(title)}</title><style>{STYLE}</style>'
        '<rect width="100%" height="100%" fill="#fff"/>'
    )
    return "".join([head, *parts, "</svg>\n"])
