"""Texts of requests as columns of ``headwatch_texts``: ciphertext, and what is known of its request without reading it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.identifiers import TENANT_LABEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.records import TextRow
    from headwatch_exporters.clickhouse.columns import Columns

TABLE = "headwatch_texts"


def text_columns(rows: Sequence[TextRow], service: str) -> Columns:
    """Return *rows* as columns.  The ids of documents stand beside each text, since the text contains theirs."""
    contexts = [row.context for row in rows]
    return {
        "time": [row.time_ns for row in rows],
        "service": [service] * len(rows),
        "model": [row.model for row in rows],
        "route": [context.route for context in contexts],
        "arm": [context.arm for context in contexts],
        "adapter": [context.adapter for context in contexts],
        "request_id": [context.request_id for context in contexts],
        "trace_id": [context.trace_id for context in contexts],
        "user": [context.user for context in contexts],
        "tenant": [context.tenant for context in contexts],
        "documents": [sorted({document.id for document in context.documents}) for context in contexts],
        "document_tenants": [
            sorted({document.labels[TENANT_LABEL] for document in context.documents if TENANT_LABEL in document.labels})
            for context in contexts
        ],
        "kind": [row.kind for row in rows],
        "chars": [row.chars for row in rows],
        "kept_chars": [row.kept_chars for row in rows],
        "redactions": [row.redactions for row in rows],
        "key": [row.key for row in rows],
        "body": [row.body for row in rows],
        "expires": [row.expires_ns for row in rows],
    }
