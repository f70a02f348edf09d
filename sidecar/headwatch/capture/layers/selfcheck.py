"""The proof that what was read is what the engine attended to.

softmax(QKᵀ)V, recomputed from the cache and the rule that capture believes in, must equal the kernel's own output.  A
wrong scale, a wrong layout, a missed window or softcap all move it.  A layer earns trust by passing on
:data:`CHECKS` rows of which one sees at least :data:`MIN_VISIBLE` positions; a row that sees fewer proves little.
What it cannot see is a permutation of keys and values together: ``headwatch verify`` can.

Cost: one product with V for the first few rows of each layer, then nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from headwatch.capture.kernels import oracle
from headwatch.capture.kernels.torch_rows import attend
from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from headwatch.capture.kernels.base import LayerCall
    from headwatch.capture.layers.discovery import CapturedLayer
    from headwatch.capture.layers.latent import LatentHeads
    from headwatch.capture.output.buffer import LayerSlot
    from headwatch.capture.plan.step import RequestRows

CHECKS = 3
MIN_VISIBLE = 16

TOLERANCE = {torch.float32: 2e-4, torch.float16: 5e-3, torch.bfloat16: 2.5e-2}
"""Largest accepted |difference|, as a share of the largest value of the row's output.  Measured on the packaged model:
2e-6 in float32 and 8e-3 in bfloat16; a scale wrong by a tenth moves it by 0.1 and more."""


def output_error(attention: Tensor, values: Tensor, output: Tensor, latent: LatentHeads | None = None) -> float:
    """Return the largest difference between recomputed and actual output, as a share of the largest output value.

    *attention* [R, H, n], *values* [n, KV, D], *output* [R, H, D] as the kernel wrote it.  With *latent*, values are
    latents, of which each head expands its weighted sum.
    """
    rows, heads, n = attention.shape
    kv_heads = values.shape[1]
    grouped = attention.reshape(rows, kv_heads, heads // kv_heads, n)
    expected = torch.einsum("rkgn,nkd->rkgd", grouped, values.float()).reshape(rows, heads, -1)
    if latent is not None:
        expected = latent.expand(expected)
    actual = output.float().reshape(rows, heads, -1)
    largest = torch.maximum(actual.abs().amax(), expected.abs().amax()).clamp(min=1e-6)
    return float((actual - expected).abs().amax() / largest)


_LEAST_VALUE = 1e-6
"""Value masses below it are noise, whatever their share of the row's largest."""


@dataclass(slots=True)
class LayerTrust:
    """How far one layer has proved itself."""

    passed: int = 0
    widest: int = 0

    @property
    def earned(self) -> bool:
        """Return whether the layer needs no further check."""
        return self.passed >= CHECKS and self.widest >= MIN_VISIBLE

    @property
    def exportable(self) -> bool:
        """Return whether what was read so far may be exported."""
        return self.widest >= MIN_VISIBLE

    def covers(self, visible: int) -> bool:
        """Return whether a row that sees *visible* positions needs no check.

        A window or a chunk shows only in long rows, so trust is earned again whenever the longest row has doubled.
        """
        return self.earned and visible < 2 * self.widest

    def check(
        self, attention: Tensor, values: Tensor, output: Tensor, visible: int, latent: LatentHeads | None = None
    ) -> None:
        """Hold one request's rows against the kernel's output.

        Raises:
            CaptureRefused: With reason ``self_check`` and the error seen.
        """
        tolerance = TOLERANCE.get(output.dtype)
        if tolerance is None:
            raise CaptureRefused("dtype", f"no tolerance is known for outputs of {output.dtype}")
        error = output_error(attention, values, output, latent)
        if not error <= tolerance:  # also true for NaN
            raise CaptureRefused(
                "self_check", f"softmax(QK)V differs from the kernel's output by {error:.3g}, allowed is {tolerance:.3g}"
            )
        self.passed += len(attention)
        self.widest = max(self.widest, visible)


def trusted_below(layers: Iterable[CapturedLayer]) -> int:
    """Return the length of the shortest row that some of *layers* would have to be checked on; 0: any.

    A layer that its kernel has failed is checked on none, and never goes the short way.
    """
    return min((2 * item.trust.widest if item.trust.earned and item.kernel is None else 0 for item in layers), default=0)


def prove(trust: LayerTrust, call: LayerCall, rows: Sequence[RequestRows]) -> None:
    """Hold *rows* of a layer against the output of the engine's kernel, until the layer has earned its trust.

    Raises:
        CaptureRefused: With reason ``self_check`` or ``dtype``.
    """
    for request in rows:
        keys, values = call.reader.read(call.cache, call.block_table[request.batch_index], request.keys)
        for part, attention, _ in attend(call, request, keys):
            if trust.covers(request.keys):
                break
            output = call.output[torch.as_tensor(request.query_index[part], device=call.output.device)]
            trust.check(attention, values, output, request.keys, call.latent)


def kernel_error(call: LayerCall, rows: Sequence[RequestRows], slot: LayerSlot) -> float:
    """Return how far what a kernel wrote into *slot* lies from the oracle; infinite where only one of them is defined.

    Value masses, which have a unit, count as a share of the row's largest.
    """
    slot.buffer.fetch()
    worst = 0.0
    for request in rows:
        keys, values = call.reader.read(call.cache, call.block_table[request.batch_index], request.keys)
        for part, attention, sink in attend(call, request, keys):
            positions = torch.as_tensor(request.positions[part], device=keys.device)
            features, mass = oracle.summarise(attention, sink, positions, request.request.spans, call.rule)
            first = request.first_row + part.start
            count = request.request.spans.spans + 1
            first_span = request.first_span + part.start * count
            wide = slice(first_span, first_span + len(features) * count)
            pairs = [
                (features.cpu().numpy(), slot.buffer.features[first : first + len(features), slot.index]),
                (mass.cpu().numpy().reshape(len(features) * count, -1), slot.buffer.span_mass[wide, slot.index]),
            ]
            if slot.buffer.value_mass is not None:
                carried = oracle.value_mass(attention, call.head_values(values), request.request.spans).cpu().numpy()
                unit = max(float(np.nanmax(carried, initial=0.0)), _LEAST_VALUE)
                found = slot.buffer.value_mass[wide, slot.index]
                pairs.append((carried.reshape(len(features) * count, -1) / unit, found / unit))
            for expected, written in pairs:
                if (np.isnan(expected) != np.isnan(written)).any():
                    return float("inf")
                worst = max(worst, float(np.nanmax(np.abs(expected - written), initial=0.0)))
    return worst
