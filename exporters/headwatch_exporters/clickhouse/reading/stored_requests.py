"""Requests read back as records: all that signals of retrieval read of a request, and nothing of its heads.

Shares are those of the calibrated heads where there were any, as :class:`~headwatch.drift.signals.read.ReadRequest` takes them.
Of the prompt only the lengths of documents come back, laid end to end: where they stood no signal asks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from headwatch.model import HISTORY_AGES, REQUEST_FEATURES, SPAN_KINDS, Document, RequestContext, Span, WorkerIdentity
from headwatch.records import Reading, RequestRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch_exporters.clickhouse.connection import Connection

_NO_HEADS = np.zeros((len(REQUEST_FEATURES), 0, 0), np.float32)


def read_requests(connection: Connection, chosen: str, given: dict[str, Any]) -> list[tuple[int, RequestRecord]]:
    """Return the unit and the record of every request of the query *chosen*, in order of time.

    Raises:
        StoreError: The store refuses.
    """
    requests = connection.query(
        f"""
        SELECT unit, toUnixTimestamp64Nano(time) AS ended_ns, model, revision, adapter, route, language, request_id, engine_id,
               weight, prompt_tokens, rows_prefill, rows_decode, state, grounding_ratio, grounding_ratio_retrieval_heads,
               document_mass, instruction_focus, span_mass, errors
        FROM ({chosen}) ORDER BY time, engine_id
        """,  # noqa: S608 - put together from our own constants
        given,
    )
    rows = connection.query(
        f"""
        SELECT engine_id, request_id, document_id, kind, source, version, retrieved_at, labels, found, share,
               share_retrieval_heads, share_prompt_end, tokens
        FROM headwatch_documents
        WHERE (engine_id, request_id) IN (SELECT engine_id, request_id FROM ({chosen}))
        ORDER BY rank
        """,  # noqa: S608 - likewise
        given,
    )
    documents = defaultdict(list)
    for row in rows:
        documents[row["engine_id"], row["request_id"]].append(row)
    return [(int(row["unit"]), _record(row, documents[row["engine_id"], row["request_id"]])) for row in requests]


def _record(row: dict[str, Any], documents: Sequence[dict[str, Any]]) -> RequestRecord:
    calibrated = row["grounding_ratio_retrieval_heads"]
    reading = _reading(row, documents, has_map=calibrated is not None)
    context = RequestContext(
        request_id=row["request_id"],
        prompt_tokens=int(row["prompt_tokens"]),
        spans=_spans(documents),
        documents=[_document(document) for document in documents],
        engine_id=row["engine_id"],
        route=row["route"],
        adapter=row["adapter"],
        errors=list(row["errors"]),
        weight=float(row["weight"]),
        language=row["language"],
    )
    return RequestRecord(
        context=context,
        worker=WorkerIdentity("", 0, 0, row["model"], row["revision"], "", 0, 0, ""),
        started_ns=int(row["ended_ns"]),
        ended_ns=int(row["ended_ns"]),
        rows_prefill=int(row["rows_prefill"]),
        rows_decode=int(row["rows_decode"]),
        state=row["state"],
        grounding_ratio=row["grounding_ratio"],
        grounding_ratio_retrieval_heads=calibrated,
        document_mass=row["document_mass"],
        document_share=tuple(document["share"] for document in documents),
        undefined=0,
        head_means=_NO_HEADS,
        reading=reading,
        reading_retrieval_heads=reading if calibrated is not None else None,
    )


def _reading(row: dict[str, Any], documents: Sequence[dict[str, Any]], *, has_map: bool) -> Reading:
    masses = np.array([row["span_mass"].get(kind, math.nan) for kind in SPAN_KINDS], np.float32)
    calibrated = has_map or any(document["share_retrieval_heads"] is not None for document in documents)
    return Reading(
        prompt_end=np.full(len(SPAN_KINDS), np.nan, np.float32),
        generated=masses,
        history=np.full(HISTORY_AGES, np.nan, np.float32),
        document_share=_shares(documents, "share_retrieval_heads" if calibrated else "share"),
        instruction_focus=row["instruction_focus"],
        prompt_end_share=_shares(documents, "share_prompt_end"),
    )


def _document(row: dict[str, Any]) -> Document:
    return Document(
        id=row["document_id"], kind=row["kind"], source=row["source"], version=row["version"],
        retrieved_at=row["retrieved_at"], labels=row["labels"], found=row["found"],
    )  # fmt: skip


def _spans(documents: Sequence[dict[str, Any]]) -> list[Span]:
    ends = np.cumsum([0, *(int(document["tokens"]) for document in documents)]).tolist()
    return [
        Span(document["kind"], start, end, number)
        for number, (document, start, end) in enumerate(zip(documents, ends[:-1], ends[1:], strict=True))
        if end > start
    ]


def _shares(documents: Sequence[dict[str, Any]], column: str) -> NDArray[np.float32]:
    return np.array([math.nan if document[column] is None else document[column] for document in documents], np.float32)
