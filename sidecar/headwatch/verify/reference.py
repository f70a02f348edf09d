"""Features of a head summary, written a second time from their definitions alone.

It shares no code with :mod:`headwatch.capture`: whoever changes one of the two must change the other for the same
reason, or ``headwatch verify`` fails.  Everything is float64 numpy, one row of one layer at a time, and prefers to be
compared with the table in docs/architecture.md over being fast (about 0.1 ms for 9 heads and 400 positions).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.model import RequestContext

    Heads = NDArray[np.float64]  # [H]

LOCAL_POSITIONS = 32
"""``local_mass`` covers so many last positions, the query's own included."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A quotient together with its denominator, without which nobody can say how exact it may be.  Both [H]."""

    value: Heads
    denominator: Heads


@dataclass(frozen=True, slots=True)
class RowReference:
    """What one layer's heads should report for one query row.  H heads, S spans; NaN where undefined."""

    entropy: Heads
    max_weight: Heads
    sink_mass: Heads
    local_mass: Heads
    distance: Heads
    lookback: Ratio
    document_mass: Ratio
    span_mass: NDArray[np.float64]  # [S + 1, H]; the last is the generated text
    centroid: Heads
    """Only over an encoder's input."""


def row_reference(
    attention: NDArray[np.floating], position: int, context: RequestContext, first: int = 0
) -> RowReference:
    """Return the features of the query row at *position*.

    *attention* is [H, position + 1], the weights of each head on every position before the row and on its own; where a
    window or a chunk hides the positions before *first*, their weights are 0.  What a row lacks to a sum of one is the mass of
    a learned sink.

    Raises:
        ValueError: *attention* has another number of positions.
    """
    a = attention.astype(np.float64)
    heads, n = a.shape
    if n != position + 1:
        raise ValueError(f"a row at position {position} sees {position + 1} positions, but has {n} weights")
    at = np.arange(n)
    seen = at >= first
    visible = int(seen.sum())

    undefined = np.full(heads, np.nan)
    if visible > 1:
        logs = np.log(a, out=np.zeros_like(a), where=a > 0)
        entropy = -(a * logs).sum(axis=1) / np.log(visible)
        distance = (a * (position - at)).sum(axis=1) / (visible - 1)
    else:
        entropy = distance = undefined

    sink_mass = a[:, 0] + np.maximum(0.0, 1.0 - a.sum(axis=1))
    document = _document_positions(context, n)
    generated = at >= context.prompt_tokens
    return RowReference(
        entropy=entropy,
        max_weight=a.max(axis=1),
        sink_mass=sink_mass,
        local_mass=a[:, max(0, n - LOCAL_POSITIONS) :].sum(axis=1),
        distance=distance,
        lookback=_lookback(a, document & seen, generated & seen),
        document_mass=_document_mass(a, document, sink_mass),
        span_mass=np.stack(
            [a[:, span.start : span.end].sum(axis=1) for span in context.spans] + [a[:, generated].sum(axis=1)]
        ),
        centroid=undefined,
    )


def cross_reference(attention: NDArray[np.floating], context: RequestContext) -> RowReference:
    """Return the features of a query row over its encoder's input, all of which it sees: *attention* is [H, positions].

    No position is the query's own, so that nothing is near or far, and none is a document or generated.
    """
    a = attention.astype(np.float64)
    heads, n = a.shape
    logs = np.log(a, out=np.zeros_like(a), where=a > 0)
    undefined = np.full(heads, np.nan)
    masses = [a[:, span.start : span.end].sum(axis=1) for span in context.encoder_spans]
    return RowReference(
        entropy=-(a * logs).sum(axis=1) / np.log(n),
        max_weight=a.max(axis=1),
        sink_mass=a[:, 0],
        local_mass=undefined,
        distance=undefined,
        lookback=_undefined(heads),
        document_mass=_undefined(heads),
        span_mass=np.stack([*masses, np.zeros(heads)]),
        centroid=(a * np.arange(n)).sum(axis=1) / (n - 1),
    )


def _document_positions(context: RequestContext, n: int) -> NDArray[np.bool_]:
    document = np.zeros(n, bool)
    for span in context.spans:
        if span.kind == "document":
            document[span.start : span.end] = True
    return document


def _lookback(a: NDArray[np.float64], document: NDArray[np.bool_], generated: NDArray[np.bool_]) -> Ratio:
    """Return m_doc / (m_doc + m_gen), m being mean weights per visible token (Lookback Lens, arXiv 2407.07071)."""
    if not document.any() or not generated.any():
        return _undefined(len(a))
    document_mean = a[:, document].mean(axis=1)
    total = document_mean + a[:, generated].mean(axis=1)
    return Ratio(np.divide(document_mean, total, out=np.full_like(total, np.nan), where=total > 0), total)


def _document_mass(a: NDArray[np.float64], document: NDArray[np.bool_], sink_mass: Heads) -> Ratio:
    """Return the mass on all documents over what the sink leaves."""
    if not document.any():
        return _undefined(len(a))
    mass = a[:, document].sum(axis=1)
    rest = 1.0 - sink_mass
    return Ratio(np.divide(mass, rest, out=np.full_like(rest, np.nan), where=rest > 0), rest)


def _undefined(heads: int) -> Ratio:
    return Ratio(np.full(heads, np.nan), np.full(heads, np.nan))
