"""One byte for a share: how features and masses of single rows are written.

Code c in 0 … 254 stands for sin²(π c / 508), the arcsine code of proportions: its steps are finest at 0 and at 1, where
shares of attention crowd, and coarsest at ½.  A share x comes back within 0.0062 √(x (1 - x)): 0.0031 at ½, 0.0006 at 0.01,
and 0 and 1 exactly.  255 is NaN, "undefined".

Numbers stand plane by plane (all heads of one feature, then of the next), because neighbours are alike: 14 shares of a head
take about 13 bytes in the store, where the float32 that the worker sent take 48 (docs/adr/0015-windows-of-heads-in-the-
store.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOAT32, SHARES = 0, 1
"""Values of the column ``code``: as the worker sent them, and as here."""
_LAST = 254
_UNDEFINED = 255
LARGEST_ERROR = float(np.pi / (4 * _LAST))
"""At ½; elsewhere 2 √(x (1 - x)) of it."""


def to_code(shares: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the code of each share; what lies outside [0, 1] (rounding) counts as 0 or 1."""
    defined = ~np.isnan(shares)
    angle = np.arcsin(np.sqrt(np.clip(np.where(defined, shares, 0), 0, 1)))
    return np.where(defined, np.rint(angle * (2 * _LAST / np.pi)), _UNDEFINED).astype(np.uint8)


def from_code(code: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the share that each *code* stands for."""
    shares: NDArray[np.float32] = _SHARES[code]
    return shares


_SHARES = np.append(np.sin(np.arange(_LAST + 1) * np.pi / (2 * _LAST)) ** 2, np.nan).astype(np.float32)
