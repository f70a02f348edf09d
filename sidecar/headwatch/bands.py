"""Bands of context length: within one, lengths differ by less than a factor of two."""

from __future__ import annotations

from functools import cache

FIRST_BAND = 256
"""All that is shorter is in one band."""
_KIBI = 1024


def context_band(visible: int) -> str:
    """Return the band of a context of *visible* tokens: bounds are powers of two, from ``<256`` upwards."""
    if visible < FIRST_BAND:
        return f"<{FIRST_BAND}"
    return _band(visible.bit_length())


@cache
def _band(bits: int) -> str:
    low = 1 << (bits - 1)
    return f"{_short(low)}-{_short(low * 2)}"


def _short(tokens: int) -> str:
    return f"{tokens // _KIBI}k" if tokens >= _KIBI else str(tokens)
