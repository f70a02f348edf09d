"""Colour scales that colour-blind readers can read, as functions of a number in [0, 1].

``viridis`` grows evenly in lightness, so that it also survives a grey print.  ``diverging`` runs from orange through
near-white to blue: no pair of red and green.  Both interpolate between a few anchors, to well under what an eye tells
apart.
"""

from __future__ import annotations

UNDEFINED = "#d9d9d9"

_VIRIDIS = ("#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725")
_DIVERGING = ("#7f3b08", "#b35806", "#e08214", "#fdb863", "#fee0b6", "#f7f7f7", "#d1e5f0", "#92c5de", "#4393c3",
              "#2166ac", "#053061")  # fmt: skip


def viridis(value: float) -> str:
    """Return the colour of *value*, clipped to [0, 1]: dark violet is 0, yellow is 1."""
    return _interpolate(_VIRIDIS, value)


def diverging(value: float) -> str:
    """Return the colour of *value*, clipped to [0, 1]: brown is 0, near-white one half, blue is 1."""
    return _interpolate(_DIVERGING, value)


def _interpolate(anchors: tuple[str, ...], value: float) -> str:
    place = min(max(value, 0.0), 1.0) * (len(anchors) - 1)
    index = min(int(place), len(anchors) - 2)
    share = place - index
    low, high = (_channels(anchors[index + offset]) for offset in (0, 1))
    mixed = (round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
