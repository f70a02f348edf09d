"""Pictures and sounds made of arithmetic: the same on every machine, and nobody's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_RATE = 16_000
_WIDTH, _HEIGHT = 96, 64


def picture(number: int) -> Any:
    """Return a PIL image of coloured rings, another one for each *number*."""
    from PIL import Image  # noqa: PLC0415 - not needed for models of text

    x, y = np.meshgrid(np.linspace(-1, 1, _WIDTH), np.linspace(-1, 1, _HEIGHT))
    rings = [np.sin((4 + number + channel) * np.hypot(x - 0.2 * channel, y)) for channel in range(3)]
    return Image.fromarray(((np.stack(rings, axis=-1) + 1) * 127.5).astype(np.uint8))


def sound(number: int, seconds: float) -> NDArray[np.float32]:
    """Return *seconds* of a tone that rises and pulses, at :data:`SAMPLE_RATE`, another one for each *number*."""
    at = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * at * (220 + 60 * number) * (1 + at)) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * at))
    result: NDArray[np.float32] = (0.4 * tone).astype(np.float32)
    return result
