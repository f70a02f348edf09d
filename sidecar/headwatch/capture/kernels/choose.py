"""Which kernel runs in this worker: the fastest one that can, and the oracle where none can."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from headwatch.capture.kernels.torch_rows import TorchRows
from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from headwatch.capture.kernels.base import RowKernel
    from headwatch.capture.kernels.triton_rows import TritonRows
    from headwatch.capture.layers.discovery import CapturedLayer

logger = logging.getLogger("headwatch.capture")


def choose(device: str, layers: list[CapturedLayer], *, values: bool, beside: bool = False) -> RowKernel:
    """Return the kernel for a worker on *device* (``cpu`` or ``cuda``), compiled for *layers*.

    *values*: whether value masses are wanted.  *beside*: whether a core that the engine leaves free may be used.
    """
    try:
        return _compiled_for_gpu(layers, values=values) if device == "cuda" else _compiled_for_cpu(beside=beside)
    except CaptureRefused as refusal:
        logger.warning("headwatch summarises with torch, at several times the cost: %s", refusal)
        return TorchRows()


def _compiled_for_cpu(*, beside: bool) -> RowKernel:
    from headwatch.capture.kernels.cpu import load  # noqa: PLC0415 - not wanted where a GPU does the work

    return load(beside=beside)


def _compiled_for_gpu(layers: list[CapturedLayer], *, values: bool) -> RowKernel:
    """Return the Triton kernel, compiled now for each geometry: a request must not wait for a compiler.

    Raises:
        CaptureRefused: With reason ``compiler``: Triton is missing or fails, or the device is no NVIDIA one.
    """
    import torch  # noqa: PLC0415

    if torch.version.hip is not None:
        raise CaptureRefused("compiler", "the Triton kernel was written for NVIDIA devices")
    try:
        from headwatch.capture.kernels.triton_rows import TritonRows  # noqa: PLC0415

        kernel = TritonRows()
        warm_up(kernel, layers, values=values)
    except ImportError as error:
        raise CaptureRefused("compiler", f"Triton cannot be imported: {error}") from error
    except (RuntimeError, ValueError, OSError) as error:
        raise CaptureRefused("compiler", f"Triton does not compile: {str(error).splitlines()[0]}") from error
    return kernel


def warm_up(kernel: TritonRows, layers: list[CapturedLayer], *, values: bool) -> None:
    """Compile *kernel* for each geometry among *layers*; the cache's first page is read, and nothing is kept."""
    import torch  # noqa: PLC0415

    from headwatch.capture.kernels.base import LayerCall  # noqa: PLC0415

    seen: set[tuple[Any, ...]] = set()
    for item in layers:
        cache = getattr(item.layer, "kv_cache", None)
        if item.reader is None or not item.active or not isinstance(cache, torch.Tensor):
            continue
        rule = item.rule
        features = (
            rule.softcap > 0, rule.window > 0, rule.chunk > 0, rule.causal, rule.alibi_slopes is None, rule.sinks is None,
        )  # fmt: skip
        geometry = (item.heads, cache.shape[1:], cache.stride(), cache.dtype, type(item.reader), features)
        if geometry in seen:
            continue
        seen.add(geometry)
        dtype = getattr(item.layer, "dtype", None) or cache.dtype
        query = torch.zeros(2, item.heads, item.layer.impl.head_size, dtype=dtype, device=cache.device)
        table = torch.zeros(1, 1, dtype=torch.int32, device=cache.device)
        kernel.warm_up(LayerCall(query, cache, table, query, item.reader, rule), values=values)
