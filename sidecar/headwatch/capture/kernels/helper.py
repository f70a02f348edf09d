"""The thread that summarises on a core that the engine leaves free: ``native/helper.h`` seen from Python.

It is a thread of the C library without Python in it, so it never asks for the interpreter's lock.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from headwatch.capture.kernels.spare import spare_processors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwatch.capture.kernels.native import Library

logger = logging.getLogger("vllm.headwatch")  # shows INFO where vLLM does

_MOST_PROCESSORS = 1024


class Helper:
    """One such thread.  Its methods are called by the engine's thread alone.

    What is handed over to it with ``hw_rows`` (lists, block table, places for the results) must stay until :meth:`settle`
    returns; queries and outputs are copied.
    """

    def __init__(self, library: Library, pointer: int) -> None:
        self._library = library
        self.pointer = pointer
        """For ``hw_rows``."""

    def settle(self) -> float:
        """Return once all that was handed over is done: the seconds of processor time that it took on the helper's core.

        Raises:
            MemoryError: Something was left undone.
        """
        spent: int = self._library.settle(self.pointer)
        if spent < 0:
            raise MemoryError("no memory for the kernel's logits")
        return spent * 1e-9

    def stop(self) -> None:
        """End the thread, which has settled; nothing may be called after it."""
        self._library.helper_stop(self.pointer)


def start(library: Library, processors: Iterable[int]) -> Helper | None:
    """Return a helper on *processors*; None where there are none, or no thread can be had."""
    wanted = np.array(sorted(processors), np.int32)
    pointer = library.helper_start(wanted.ctypes.data, len(wanted)) if len(wanted) else None
    if not pointer:
        return None
    logger.info("headwatch summarises beside the engine, on processor %s", " or ".join(map(str, wanted)))
    return Helper(library, pointer)


def spare(library: Library, threads: int) -> set[int]:
    """Return the processors that an engine of *threads* threads, to which the caller belongs, leaves free."""
    found = np.zeros(_MOST_PROCESSORS, np.int32)
    count = library.engine_processors(threads, found.ctypes.data, len(found))
    return spare_processors({int(number) for number in found[:count]}, threads) if count else set()
