"""What is said of one answer outside of the store: which documents it was given, what it read of them, how it went.

The same facts as JSON, for the log of requests, and as attributes, for spans.  Never any text of a prompt.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from headwatch.drift.signals import focus
from headwatch.drift.signals.read import ReadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.model import Document
    from headwatch.records import Reading, RequestRecord

_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN_ID = re.compile(r"(?!0{16})[0-9a-f]{16}")
_DIGITS = 6


def trace_of(record: RequestRecord) -> tuple[int, int] | None:
    """Return the ids of the caller's trace and of the span within it that asked; None where they did not come along."""
    context = record.context
    if not (_TRACE_ID.fullmatch(context.trace_id) and _SPAN_ID.fullmatch(context.parent_span_id)):
        return None
    return int(context.trace_id, 16), int(context.parent_span_id, 16)


def span_id_of(record: RequestRecord) -> int:
    """Return the id of headwatch's own span of a request: the same whenever it is asked, never 0."""
    name = f"{record.worker.instance}|{record.context.engine_id}|{record.started_ns}"
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, person=b"hw-span").digest()
    return int.from_bytes(digest, "big") or 1


def request_facts(record: RequestRecord, service: str) -> dict[str, Any]:
    """Return *record* as plain values for JSON; what is undefined or unknown is null."""
    context, worker = record.context, record.worker
    return {
        "time": _iso(record.ended_ns),
        "service": service,
        "instance": worker.instance,
        "trace_id": context.trace_id or None,
        "parent_span_id": context.parent_span_id or None,
        "request_id": context.request_id,
        "engine_id": context.engine_id,
        "model": worker.model,
        "revision": worker.revision or None,
        "adapter": context.adapter or None,
        "route": context.route or None,
        "arm": context.arm or None,
        "user": context.user or None,
        "tenant": context.tenant or None,
        "language": context.language or None,
        "template": context.template or None,
        "prompt_digest": context.prompt_digest or None,
        "stands_for": _number(context.weight),
        "duration_seconds": _number((record.ended_ns - record.started_ns) / 1e9),
        "prompt_tokens": context.prompt_tokens,
        "rows_prefill": record.rows_prefill,
        "rows_decode": record.rows_decode,
        "grounding": {
            "state": record.state,
            "ratio": _number(record.grounding_ratio),
            "ratio_retrieval_heads": _number(record.grounding_ratio_retrieval_heads),
            "document_mass": _number(record.document_mass),
            "instruction_focus": _number(focus.values(ReadRequest(record)).get("instruction_focus")),
        },
        "documents": list(document_facts(record)),
        "flags": flags(record),
    }


def document_facts(record: RequestRecord) -> Iterator[dict[str, Any]]:
    """Yield what is known of each document, in the client's order: the best first."""
    tokens, documents = document_tokens(record), record.context.documents
    for rank, (document, share) in enumerate(zip(documents, record.document_share, strict=True)):
        yield {
            **_named(document),
            "rank": rank,
            "tokens": tokens[rank],
            "share": _number(share),
            "share_retrieval_heads": _share(record.reading_retrieval_heads, rank),
        }


def document_tokens(record: RequestRecord) -> list[int]:
    """Return how many tokens of the prompt belong to each document."""
    tokens = [0] * len(record.context.documents)
    for span in record.context.spans:
        if 0 <= span.document < len(tokens):
            tokens[span.document] += max(span.end - span.start, 0)
    return tokens


def flags(record: RequestRecord) -> list[str]:
    """Return in words what was odd: no documents, documents that were not found, reasons of what could not be used."""
    found = {"documents_absent"} if record.state == "absent" else set()
    if record.state == "unresolved":
        found.add("grounding_unresolved")
    if not all(document.found for document in record.context.documents):
        found.add("document_not_in_prompt")
    return sorted(found.union(record.context.errors))


def _named(document: Document) -> dict[str, Any]:
    return {
        "id": document.id,
        "kind": document.kind,
        "source": document.source or None,
        "version": document.version or None,
        "retrieved_at": document.retrieved_at or None,
        "labels": document.labels,
        "found": document.found,
    }


def _share(reading: Reading | None, rank: int) -> float | None:
    return None if reading is None else _number(float(reading.document_share[rank]))


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, _DIGITS)


def _iso(time_ns: int) -> str:
    seconds, nanoseconds = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds // 10**6:03d}Z"
