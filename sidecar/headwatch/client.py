"""What a client calls: the request field that names its documents.

::

    client.chat.completions.create(
        model="…",
        messages=messages,
        extra_body={"vllm_xargs": request_field(documents=documents, route="support")},
    )

The field travels as a JSON string, because vLLM takes only strings, numbers and flat lists in ``vllm_xargs``.  Its schema
is docs/request-field.schema.json.  This module loads nothing but the standard library: a client that has no vLLM, numpy
or msgspec can use it, or can write the JSON itself.
"""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, get_args

from headwatch.errors import RequestFieldError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FIELD_KEY = "headwatch"
"""The key of ``vllm_xargs`` (``SamplingParams.extra_args`` inside vLLM) that carries the field."""

DocumentKey = Literal["id", "text", "kind", "source", "version", "retrieved_at", "labels", "start", "end"]
SpanKey = Literal["kind", "start", "end", "age"]
DOCUMENT_KEYS: tuple[DocumentKey, ...] = get_args(DocumentKey)
SPAN_KEYS: tuple[SpanKey, ...] = get_args(SpanKey)


def request_field(  # noqa: PLR0913 - one argument for each key of the field
    *,
    documents: Iterable[Mapping[str, Any] | object] = (),
    route: str = "",
    arm: str = "",
    language: str = "",
    template: str = "",
    user: str = "",
    tenant: str = "",
    canary: str = "",
    traceparent: str = "",
    spans: Iterable[Mapping[str, Any] | object] | None = None,
    capture: bool | Literal["always", "full"] | None = None,
    detail: int | None = None,
) -> dict[str, str]:
    """Return ``{"headwatch": "<JSON>"}``, ready for ``vllm_xargs=``.

    *documents* are mappings, or objects with attributes, of the keys ``id`` (required), ``text`` (as it stands in the
    prompt: used to find it there, never stored), ``kind`` (``document``, ``memory`` or ``tool``), ``source``,
    ``version``, ``retrieved_at`` (text or a datetime), ``labels`` (text to text), and ``start`` and ``end`` (token
    offsets, where the client knows them). *spans* are further explicit token spans: ``kind``, ``start``, ``end``,
    ``age``. *traceparent* is the W3C header of the caller's span. *language* and *template* (a version of the
    client's own prompt template) are held equal where requests are compared. *user* and *tenant* say who asked, and on
    whose behalf: the sidecar may store them hashed, and they can be purged by name. *canary* names a canary prompt and is
    set by ``headwatch canary``. *capture* is False to keep a request out, ``"always"`` to sample it whatever the
    rate, and ``"full"`` to sample every row of it as well. *detail* asks for at least this much of each sampled row:
    2 the mass on each block of tokens, 3 the top positions, 4 whole rows.

    Raises:
        RequestFieldError: ``unknown_key`` (a mapping has a key that the field does not know) or ``missing_id``.
    """
    field: dict[str, Any] = {
        "capture": capture,
        "detail": detail,
        "traceparent": traceparent,
        "route": route,
        "arm": arm,
        "language": language,
        "template": template,
        "user": user,
        "tenant": tenant,
        "canary": canary,
        "documents": [_document(item) for item in documents],
        "spans": [_pick(item, SPAN_KEYS, "span") for item in spans or ()],
    }
    kept = {key: value for key, value in field.items() if value not in (None, "", [])}
    return {FIELD_KEY: json.dumps(kept, ensure_ascii=False, separators=(",", ":"))}


def _document(item: Mapping[str, Any] | object) -> dict[str, Any]:
    document = _pick(item, DOCUMENT_KEYS, "document")
    if not document.get("id"):
        raise RequestFieldError("missing_id", f"a document needs an id: {sorted(document)}")
    retrieved_at = document.get("retrieved_at")
    if isinstance(retrieved_at, date):  # a datetime is one too
        document["retrieved_at"] = retrieved_at.isoformat()
    if "labels" in document:
        document["labels"] = {str(name): str(value) for name, value in document["labels"].items()}
    return document


def _pick(item: Mapping[str, Any] | object, keys: tuple[str, ...], noun: str) -> dict[str, Any]:
    """Return the known keys of *item* that are set.  A mapping must not have others: they are typing errors."""
    if isinstance(item, dict):
        unknown = item.keys() - set(keys)
        if unknown:
            raise RequestFieldError("unknown_key", f"{noun} has unknown keys {sorted(unknown)}; known: {', '.join(keys)}")
        values = item
    else:
        values = {key: getattr(item, key, None) for key in keys}
    return {key: values[key] for key in keys if values.get(key) not in (None, "", {})}
