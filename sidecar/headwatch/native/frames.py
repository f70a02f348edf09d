"""``frames.c`` as Python sees it: the arithmetic of every frame, several times as fast as in numpy, and the same numbers.

Where there is no compiler the callers do without, and the log says so once.  The interpreter is held during a call: one takes
some microseconds, and to get the interpreter back would take longer.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwatch.errors import CannotCompile
from headwatch.model import FEATURES, REQUEST_FEATURES, SINK_SATURATED, SPAN_KINDS
from headwatch.native.compiler import compiled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

logger = logging.getLogger("headwatch.native")

SCALE = 3
BUCKETS = 128
"""Of a histogram: :mod:`headwatch.aggregate.histogram` says what they mean."""
_O, _I64 = ctypes.py_object, ctypes.c_int64
_FLAGS = (
    "-fopenmp-simd",
    *(
        f"-D{name}={value}"
        for name, value in (
            ("FEATURES", len(FEATURES)),
            ("SINK", FEATURES.index("sink_mass")),
            ("LOOKBACK", FEATURES.index("lookback")),
            ("KEPT", len(REQUEST_FEATURES)),
            ("DOCUMENT_MASS", REQUEST_FEATURES.index("document_mass")),
            ("KINDS", len(SPAN_KINDS)),
            ("SATURATED", f"{SINK_SATURATED}f"),
            ("BUCKETS", BUCKETS),
        )
    ),
)


def lower_ends() -> NDArray[np.int32]:
    """Return the mantissas of the last floats that are not above the bounds within a power of two, [2 ** SCALE]."""
    exact = np.exp2(np.arange(1 << SCALE) / (1 << SCALE))
    near = exact.astype(np.float32)
    below = np.where(near > exact, np.nextafter(near, np.float32(0)), near)
    ends: NDArray[np.int32] = below.view(np.int32) & 0x7FFFFF
    return ends


class Frames:
    """The functions of ``frames.c``.

    Arrays are given as they are and must lie side by side in memory; those whose size does not fit the others are refused with
    a ``ValueError``, others with a ``BufferError``, and nothing is touched beyond them.
    """

    def __init__(self, path: Path) -> None:
        library = ctypes.PyDLL(str(path))
        self._within = _function(library.hw_within, ctypes.c_int, _O, ctypes.c_double)
        self._values = _function(library.hw_values, None, *[_O] * 4, _I64, _I64, *[_O] * 4)
        self._add = _function(library.hw_add, None, _O, _O, ctypes.c_double)
        self._sums = _function(library.hw_sums, None, _O, _O, _I64, _I64, _O)
        self._gather = _function(library.hw_gather, None, _O, _O, *[_I64] * 4, ctypes.c_double)
        self._keep = _function(library.hw_keep, None, _O, _I64, _O)
        self._observe = _function(library.hw_observe, None, *[_O] * 3, _I64, _I64, *[_O] * 6)
        self._ends = lower_ends()

    def within(self, values: NDArray[np.float32], largest: float) -> bool:
        """Return whether none of *values* is further than *largest* from 0; NaN is not."""
        return bool(self._within(values, largest))

    def values(
        self, features: NDArray[np.float32], masses: Sequence[NDArray[np.float32]], positions: Sequence[int],
        plans: Sequence[NDArray[np.int64]], documents: int, window: NDArray[np.float32],
        rest: NDArray[np.float32], parts: NDArray[np.float32] | None,
    ) -> list[int]:
        """Fill what :class:`headwatch.aggregate.values.FrameValues` holds, shaped as it says, and return ``undefined``.

        *masses* (none at detail 0), *positions* and *plans* (``SpanTable.plan``) have an entry for each row.
        """
        undefined = np.empty(len(plans), np.int64)
        self._values(
            features, tuple(masses), tuple(positions), tuple(plans), rest[0].size, documents, window, rest, parts, undefined
        )  # fmt: skip
        return undefined.tolist()

    def add(self, sums: NDArray[np.float64], window: NDArray[np.float32], weight: float) -> None:
        """Add one row of *window* [F, L, H], times *weight*, to what a request keeps, *sums* [2, kept features, L, H]."""
        self._add(sums, window, weight)

    def sums(self, values: NDArray[np.float32], members: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return [R, 2, Q, G] of *values* [R, Q, heads] and *members* [G, heads]."""
        rows, quantities, heads = values.shape
        sums = np.empty((rows, 2, quantities, len(members)), np.float32)
        self._sums(values, members, quantities, heads, sums)
        return sums

    def gather(self, total: NDArray[np.float64], sums: NDArray[np.float32], row: int, weight: float) -> None:
        """Add *row* of *sums* [R, 2, Q, G], times *weight*, to *total* [2, Q', G], of which there may be fewer quantities."""
        self._gather(total, sums, row, len(sums), total.shape[1], total.shape[2], weight)

    def keep(self, waiting: NDArray[np.float32], row: int, values: NDArray[np.float32]) -> None:
        """Let *row* of *waiting* [R, ...] be *values* [...]."""
        self._keep(waiting, row, values)

    def observe(
        self, values: NDArray[np.float32], weights: NDArray[np.int64], first: int, block: tuple[NDArray[Any], ...]
    ) -> None:
        """Add *values* [N, C'] to the cells from *first* on of *block*.

        That is its ``count weight total minimum maximum``, [C] each, and the slots [C, BUCKETS + 1].
        """
        self._observe(values, weights, self._ends, values.shape[1], first, *block)


def _function(function: Any, result: Any, *arguments: Any) -> Any:
    function.argtypes, function.restype = arguments, result
    return function


def load() -> Frames:
    """Return the compiled functions.

    Raises:
        CannotCompile: This machine has none.
    """
    if sys.byteorder != "little":
        raise CannotCompile("frames are little-endian, and this machine is not")
    path = compiled(Path(__file__).with_name("frames.c"), _FLAGS)
    try:
        return Frames(path)
    except (OSError, AttributeError) as error:
        raise CannotCompile(f"{path} cannot be loaded: {error}") from error


@lru_cache(maxsize=1)
def frames() -> Frames | None:
    """Return the compiled functions, loaded once, or None where this machine has none."""
    try:
        return load()
    except CannotCompile as error:
        logger.warning("headwatch computes with numpy, and takes less than half as many rows: %s", error)
        return None
