"""Ended requests, their documents and their heads as columns of the tables of evidence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift.signals import focus, grounding, prompt_kind
from headwatch.drift.signals.read import ReadRequest
from headwatch.model import REQUEST_FEATURES, REQUEST_VALUES, SPAN_KINDS
from headwatch_exporters.provenance import document_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.records import Reading, RequestRecord
    from headwatch_exporters.clickhouse.columns import Columns


_U32 = 2**32 - 1


def request_columns(records: Sequence[RequestRecord], service: str) -> dict[str, Columns]:
    """Return ended requests, their documents and their heads by table."""
    return {
        "headwatch_requests": _requests(records, service),
        "headwatch_documents": _documents(records, service),
        "headwatch_request_heads": _heads([record for record in records if record.rows_decode], service),
    }


def _keys(records: Sequence[RequestRecord], service: str) -> Columns:
    """Return the columns that name a request in all three tables; one row for each of *records*, repeats included."""
    return {
        "time": [record.ended_ns for record in records],
        "service": [service] * len(records),
        "model": [record.worker.model for record in records],
        "route": [record.context.route for record in records],
        "arm": [record.context.arm for record in records],
        "request_id": [record.context.request_id for record in records],
        "engine_id": [record.context.engine_id for record in records],
        "weight": [record.context.weight for record in records],
    }


def _requests(records: Sequence[RequestRecord], service: str) -> Columns:
    return {
        **_keys(records, service),
        "instance": [record.worker.instance for record in records],
        "revision": [record.worker.revision for record in records],
        "adapter": [record.context.adapter for record in records],
        "user": [record.context.user for record in records],
        "tenant": [record.context.tenant for record in records],
        "trace_id": [record.context.trace_id for record in records],
        "prompt_tokens": [record.context.prompt_tokens for record in records],
        "rows_prefill": [record.rows_prefill for record in records],
        "rows_decode": [record.rows_decode for record in records],
        "state": [record.state for record in records],
        "grounding_ratio": [record.grounding_ratio for record in records],
        "grounding_ratio_retrieval_heads": [record.grounding_ratio_retrieval_heads for record in records],
        "document_mass": [record.document_mass for record in records],
        **_reading(records),
        "language": [record.context.language for record in records],
        "template": [record.context.template for record in records],
        "prompt_digest": [record.context.prompt_digest for record in records],
        "prompt_kind": [prompt_kind(record.context) for record in records],
        "undefined": [record.undefined for record in records],
        "documents": [len(record.context.documents) for record in records],
        "documents_found": [sum(document.found for document in record.context.documents) for record in records],
        "errors": [record.context.errors for record in records],
        "duration_seconds": [(record.ended_ns - record.started_ns) / 1e9 for record in records],
    }


def _reading(records: Sequence[RequestRecord]) -> Columns:
    """Return where the calibrated heads looked, or all heads where none are calibrated, over generated rows."""
    signals = [{**grounding.values(request), **focus.values(request)} for request in map(ReadRequest, records)]
    readings = [record.reading_retrieval_heads or record.reading for record in records]
    masses = [dict(zip(SPAN_KINDS, reading.generated.tolist(), strict=True)) if reading else {} for reading in readings]
    return {
        **{name: [values.get(name) for values in signals] for name in ("instruction_focus", "history_mass")},
        "span_mass": [{kind: mass for kind, mass in by_kind.items() if not math.isnan(mass)} for by_kind in masses],
    }


def _documents(records: Sequence[RequestRecord], service: str) -> Columns:
    rows = [
        (record, rank, document, share)
        for record in records
        for rank, (document, share) in enumerate(zip(record.context.documents, record.document_share, strict=True))
    ]
    documents = [document for _, _, document, _ in rows]
    tokens = {id(record): [min(count, _U32) for count in document_tokens(record)] for record in records}
    return {
        **_keys([record for record, *_ in rows], service),
        "rank": [rank for _, rank, *_ in rows],
        "document_id": [document.id for document in documents],
        "kind": [document.kind for document in documents],
        "source": [document.source for document in documents],
        "version": [document.version for document in documents],
        "retrieved_at": [document.retrieved_at for document in documents],
        "labels": [document.labels for document in documents],
        "found": [document.found for document in documents],
        "share": [share for *_, share in rows],
        "share_retrieval_heads": [_share(record.reading_retrieval_heads, rank) for record, rank, *_ in rows],
        "share_prompt_end": [
            _share(record.reading_retrieval_heads or record.reading, rank, prompt_end=True) for record, rank, *_ in rows
        ],
        "tokens": [tokens[id(record)][rank] for record, rank, *_ in rows],
    }


def _share(reading: Reading | None, rank: int, *, prompt_end: bool = False) -> float | None:
    """Return the share of the document number *rank*, of generated rows or at the prompt's end; None where undefined."""
    shares = None if reading is None else reading.prompt_end_share if prompt_end else reading.document_share
    share = math.nan if shares is None else float(shares[rank])
    return None if math.isnan(share) else share


def _heads(records: Sequence[RequestRecord], service: str) -> Columns:
    """Return one row for each request and head: means over generated rows, NaN where undefined."""
    shapes = [record.head_means.shape[1:] for record in records]
    repeated = [record for record, (layers, heads) in zip(records, shapes, strict=True) for _ in range(layers * heads)]
    cells = [np.indices(shape).reshape(2, -1) for shape in shapes]
    values = [record.head_means.reshape(len(REQUEST_FEATURES), -1) for record in records]
    place = np.concatenate(cells, axis=1) if cells else np.zeros((2, 0), np.int64)
    means = np.concatenate(values, axis=1) if values else np.zeros((len(REQUEST_FEATURES), 0), np.float32)
    nothing = np.zeros((len(REQUEST_VALUES), 0), np.float32)
    carried = np.concatenate([nothing, *map(_values, records)], axis=1)
    return {
        **_keys(repeated, service),
        "layer": place[0].tolist(),
        "head": place[1].tolist(),
        **{feature: means[number].tolist() for number, feature in enumerate(REQUEST_FEATURES)},
        **{name: carried[number].tolist() for number, name in enumerate(REQUEST_VALUES)},
    }


def _values(record: RequestRecord) -> NDArray[np.float32]:
    """Return what each head of *record* moved, [len(REQUEST_VALUES), layers · heads]; NaN where it was not measured."""
    if record.value_means is None:
        return np.full((len(REQUEST_VALUES), record.head_means[0].size), np.nan, np.float32)
    return record.value_means.reshape(len(REQUEST_VALUES), -1)
