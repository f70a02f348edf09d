"""The pass that fills the columns of detail levels 2 to 4: mass by block, top positions, whole rows.

It runs after the row kernel, for rows that want more, and takes the weights from the oracle, because no kernel that
streams over K ever holds them.  So it works for every reader, rule and device that the oracle serves, and is exact where
the oracle is: top weights and whole rows are its weights (the latter as float16: relative error 2^-11, absolute 2^-25
below 6e-5), block masses their sums, within the error of :mod:`headwatch.wire.mass_code`.

Cost per layer and row: another pass over K with torch, 5 to 7 times the engine's own attention for the row (measured on
two cores, docs/detail.md), 17 to 26 times the compiled kernel; on a GPU it waits for the stream.  So these levels are for few
rows, and the budget counts them so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from headwatch.capture.kernels.torch_rows import attend
from headwatch.wire.mass_code import to_code

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from headwatch.capture.kernels.base import LayerCall
    from headwatch.capture.output.buffer import LayerSlot
    from headwatch.capture.output.detail_buffer import DetailBuffer
    from headwatch.capture.plan.step import RequestRows


def write_detail(call: LayerCall, rows: Sequence[RequestRows], slot: LayerSlot) -> None:
    """Write the detail columns of *rows* into *slot*, as far as its buffer has them."""
    buffer, index = slot.buffer.detail, slot.index
    if buffer is None:
        return
    for request in rows:
        keys, _ = call.reader.read(call.cache, call.block_table[request.batch_index], request.keys)
        for part, attention, _ in attend(call, request, keys):
            first = request.first_row + part.start
            visible = (request.positions[part] + 1).tolist()
            _write_blocks(buffer, index, first, visible, attention)
            _write_top(buffer, index, first, attention)
            _write_full(buffer, index, first, visible, attention)


def _write_blocks(buffer: DetailBuffer, index: int, first: int, visible: list[int], attention: Tensor) -> None:
    rows, heads, n = attention.shape
    blocks = -(-n // buffer.block_tokens)
    padded = torch.nn.functional.pad(attention, (0, blocks * buffer.block_tokens - n))
    mass = padded.reshape(rows, heads, blocks, buffer.block_tokens).sum(-1)
    codes = to_code(mass.transpose(1, 2).cpu().numpy())  # [R, blocks, H]
    for row, tokens in enumerate(visible):
        start = buffer.block_start[first + row]
        seen = -(-tokens // buffer.block_tokens)
        buffer.block_profile[start : start + seen, index] = codes[row, :seen]


def _write_top(buffer: DetailBuffer, index: int, first: int, attention: Tensor) -> None:
    if buffer.top_position is None or buffer.top_weight is None:
        return
    rows, _, n = attention.shape
    width = buffer.top_position.shape[-1]
    known = min(width, n)
    weights, places = attention.topk(known, dim=-1)
    seen = weights > 0  # False also for NaN: what has no weight is no top position
    target = slice(first, first + rows)
    buffer.top_position[target, index, :, :known] = places.masked_fill(~seen, -1).cpu().numpy()
    buffer.top_weight[target, index, :, :known] = weights.masked_fill(~seen, 0.0).cpu().numpy()
    buffer.top_position[target, index, :, known:] = -1
    buffer.top_weight[target, index, :, known:] = 0.0


def _write_full(buffer: DetailBuffer, index: int, first: int, visible: list[int], attention: Tensor) -> None:
    if buffer.full_weight is None:
        return
    halves: NDArray[np.float16] = attention.to(torch.float16).transpose(1, 2).cpu().numpy()  # [R, n, H]
    for row, tokens in enumerate(visible):
        start = buffer.full_start[first + row]
        buffer.full_weight[start : start + tokens, index] = halves[row, :tokens]
