"""One byte for a mass: the code of block profiles.

Code c in 1 … 255 stands for the mass 2^((c - 255) / 10): 255 is 1, ten steps are a factor of 2, and the smallest mass is
2^-25.4.  Code 0 stands for 0, which takes everything under 2^-25.45 (2.2e-8, below what float32 weights resolve).  A mass
of at least that comes back within 3.6 % (a factor of 2^(1/20)), so that a profile keeps its shape over 25 powers of two,
where a linear byte would lose all but the largest eight.  NaN becomes 0; the row's features say that it is undefined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS_PER_OCTAVE = 10
RELATIVE_ERROR = 2 ** (0.5 / STEPS_PER_OCTAVE) - 1
"""Largest relative error of a mass between :data:`SMALLEST` and 1."""
_LAST = 255
SMALLEST = 2.0 ** ((0.5 - _LAST) / STEPS_PER_OCTAVE)
"""Masses under this one become 0."""


def to_code(mass: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the code of each *mass*; what exceeds 1 (rounding) counts as 1."""
    kept = mass >= SMALLEST  # False for NaN
    octaves = np.log2(mass, where=kept, out=np.full(mass.shape, -np.inf, mass.dtype))
    code = np.clip(np.rint(octaves * STEPS_PER_OCTAVE) + _LAST, 1, _LAST)
    return np.where(kept, code, 0).astype(np.uint8)


def from_code(code: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mass that each *code* stands for."""
    masses: NDArray[np.float32] = _MASSES[code]
    return masses


_MASSES = np.concatenate([
    np.zeros(1), np.exp2((np.arange(1, _LAST + 1) - _LAST) / STEPS_PER_OCTAVE)
]).astype(np.float32)  # fmt: skip
