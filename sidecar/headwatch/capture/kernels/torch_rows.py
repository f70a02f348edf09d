"""The oracle as a kernel: torch operations, on any device and for every reader and rule.

It is what runs where no compiled kernel can, and what the compiled ones are held against.  Rows of a long context are
taken in pieces, so that never more than :data:`CHUNK_ELEMENTS` weights are held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from headwatch.capture.kernels import oracle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from headwatch.capture.kernels.base import LayerCall, Memo
    from headwatch.capture.output.buffer import LayerSlot
    from headwatch.capture.plan.step import RequestRows

CHUNK_ELEMENTS = 1 << 22
"""Attention weights held at once: 16 MiB of float32."""


class TorchRows:
    """The torch kernel."""

    name = "torch"
    carries_values = True

    def summarise(self, call: LayerCall, rows: Sequence[RequestRows], slot: LayerSlot, memo: Memo) -> None:  # noqa: ARG002 - nothing is prepared
        """Write the summaries of *rows* into *slot*."""
        buffer, index = slot.buffer, slot.index
        for request in rows:
            keys, values = call.reader.read(call.cache, call.block_table[request.batch_index], request.keys)
            for part, attention, sink in attend(call, request, keys):
                positions = torch.as_tensor(request.positions[part], device=keys.device)
                features, mass = oracle.summarise(attention, sink, positions, request.request.spans, call.rule)
                first = request.first_row + part.start
                buffer.features[first : first + len(features), index] = features.cpu().numpy()
                spans = _spans(buffer.span_mass[:, index], request, part)
                spans[...] = mass.cpu().numpy()
                if buffer.centroid is not None:
                    buffer.centroid[first : first + len(features), index] = oracle.centroid(attention).cpu().numpy()
                if buffer.value_mass is not None and buffer.output_norm is not None:
                    carried = oracle.value_mass(attention, call.head_values(values), request.request.spans)
                    _spans(buffer.value_mass[:, index], request, part)[...] = carried.cpu().numpy()
                    output = call.output[torch.as_tensor(request.query_index[part], device=call.output.device)]
                    norm = output.float().reshape(*features.shape[:2], -1).norm(dim=-1)
                    buffer.output_norm[first : first + len(features), index] = norm.cpu().numpy()

    def again(self, *_: object) -> bool:
        """Return False: there is no shorter way."""
        return False

    def settle(self) -> float:
        """Return 0: nothing runs elsewhere."""
        return 0.0


def attend(call: LayerCall, request: RequestRows, keys: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield (rows, weights [R, H, n], sink mass [R, H]) of one request, a bounded number of rows at a time."""
    heads = call.query.shape[1]
    size = max(1, CHUNK_ELEMENTS // (heads * request.keys))
    for start in range(0, len(request.positions), size):
        part = slice(start, min(start + size, len(request.positions)))
        query = call.queries(torch.as_tensor(request.query_index[part], device=call.query.device))
        positions = torch.as_tensor(request.positions[part], device=keys.device)
        yield part, *oracle.weights(query, keys, positions, call.rule)


def _spans(masses: NDArray[np.float32], request: RequestRows, part: slice) -> NDArray[np.float32]:
    """Return the view [R, spans + 1, H] of *masses* [Q, H] that belongs to the rows *part* of *request*."""
    count = request.request.spans.spans + 1
    first = request.first_span + part.start * count
    return masses[first : first + (part.stop - part.start) * count].reshape(part.stop - part.start, count, -1)
