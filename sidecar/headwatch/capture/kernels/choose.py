"""Which kernel runs in this worker: the fastest one that can, and the oracle where none can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.capture.kernels.torch_rows import TorchRows

if TYPE_CHECKING:
    from headwatch.capture.kernels.base import RowKernel


def choose() -> RowKernel:
    """Return the kernel of this worker."""
    return TorchRows()
