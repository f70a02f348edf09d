"""Can the colours of a panel be told apart by who sees red and green alike?

One man in twelve does not see one of the two.  Colours of series in one panel are looked at as he sees them, by the matrices
of Machado, Oliveira and Fernandes (2009) for full protanopia and deuteranopia, in linear sRGB, and compared as distances in
CIE L*a*b*.  Colours that come with a word (a value mapping, a figure) are not held to it: there the word says it.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAMED = {
    "green": "#73BF69", "yellow": "#FADE2A", "orange": "#FF9830", "red": "#F2495C", "blue": "#5794F2", "purple": "#B877D9",
    "gray": "#808080",
}  # fmt: skip
"""Grafana's names of colours that panels may use, in its dark theme (@grafana/data, createVisualizationColors)."""
NO_COLOUR = frozenset({"transparent", "text"})
LEAST_DISTANCE = 20.0
"""Two lines that are nearer are hard to tell apart on a screen; 2.3 is the least that an eye sees at all."""
_VISION = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}
_SRGB_LINEAR = 0.04045
_WHITE = (0.95047, 1.0, 1.08883)
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))


def colour_problems(panel: dict[str, Any]) -> Iterator[str]:
    """Yield which colours of *panel* Grafana does not know, and which series of it look alike to who is colour-blind."""
    fixed: dict[str, str] = {}
    for name in _all_colours(panel):
        if name not in NAMED and name not in NO_COLOUR:
            yield f"colour {name!r} is none of {', '.join(NAMED)}"
    for override in panel.get("fieldConfig", {}).get("overrides", []):
        for item in override.get("properties", []):
            if item.get("id") == "color" and item["value"].get("fixedColor") in NAMED:
                fixed[str(override["matcher"].get("options"))] = item["value"]["fixedColor"]
    for (one, first), (other, second) in itertools.combinations(fixed.items(), 2):
        for vision in _VISION:
            if (apart := distance(first, second, vision)) < LEAST_DISTANCE:
                yield f"{one!r} in {first} and {other!r} in {second} look alike with {vision}: {apart:.0f} apart"


def distance(one: str, other: str, vision: str) -> float:
    """Return how far apart two of :data:`NAMED` are with *vision*, as a distance in CIE L*a*b*."""
    first, second = (_lab(_multiplied(_VISION[vision], _linear(NAMED[name]))) for name in (one, other))
    return math.dist(first, second)


def _all_colours(value: Any) -> Iterator[str]:
    """Yield every named colour in the settings of a panel."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in {"fixedColor", "color"} and isinstance(item, str):
                yield item
            else:
                yield from _all_colours(item)
    elif isinstance(value, list):
        for item in value:
            yield from _all_colours(item)


def _linear(code: str) -> tuple[float, ...]:
    shares = [int(code[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return tuple(share / 12.92 if share <= _SRGB_LINEAR else ((share + 0.055) / 1.055) ** 2.4 for share in shares)


def _multiplied(matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> tuple[float, ...]:
    return tuple(min(max(sum(a * b for a, b in zip(row, vector, strict=True)), 0.0), 1.0) for row in matrix)


def _lab(linear: Sequence[float]) -> tuple[float, float, float]:
    xyz = [sum(a * b for a, b in zip(row, linear, strict=True)) for row in _XYZ]
    x, y, z = (
        share ** (1 / 3) if share > 216 / 24389 else (24389 / 27 * share + 16) / 116
        for share in (value / white for value, white in zip(xyz, _WHITE, strict=True))
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)
