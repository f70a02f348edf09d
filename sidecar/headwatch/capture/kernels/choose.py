"""Which kernel runs in this worker: the fastest one that can, and the oracle where none can."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from headwatch.capture.kernels.torch_rows import TorchRows
from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from headwatch.capture.kernels.base import RowKernel

logger = logging.getLogger("headwatch.capture")


def choose() -> RowKernel:
    """Return the kernel of this worker."""
    from headwatch.capture.kernels.cpu import load  # noqa: PLC0415 - not wanted where a GPU does the work

    try:
        return load()
    except CaptureRefused as refusal:
        logger.warning("headwatch summarises with torch, at several times the cost: %s", refusal)
        return TorchRows()
