"""Mutated request fields: each is read or refused by one of the documented reasons."""

from __future__ import annotations

import json

import pytest

from headwatch.capture.request.field import parse, peek
from headwatch.config import CaptureConfig
from headwatch.errors import RequestFieldError
from headwatch.model import FIELD_REJECTED

from .harness import feed

CONFIG = CaptureConfig(max_field_bytes=4096, max_documents=4)
DOCUMENT = {"id": "kb-1", "text": "Mass is conserved.", "source": "wiki", "version": "7", "labels": {"tenant": "acme"}}
FIELDS = [
    {},
    {"documents": [DOCUMENT, {**DOCUMENT, "start": 3, "end": 9}], "route": "support", "arm": "a", "language": "de"},
    {"documents": [DOCUMENT] * 5},
    {"spans": [{"kind": "history", "start": 0, "end": 4, "age": 2}], "capture": "full", "detail": 4, "user": "u"},
    {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "capture": False, "canary": "one"},
    {"documents": [{**DOCUMENT, "text": "x" * 5000}]},
]


def take(payload: bytes) -> str:
    text = payload.decode("utf-8", "surrogateescape")  # lone surrogates, as JSON from a client may hold them
    peek(text, CONFIG)
    try:
        parse(text, CONFIG)
    except RequestFieldError as error:
        return error.reason if str(error) else ""
    return "taken"


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_every_field_is_read_or_refused_by_a_known_reason(count: int) -> None:
    said = feed(count, [json.dumps(field).encode() for field in FIELDS], take)
    assert set(said) <= FIELD_REJECTED | {"taken"}
    assert len(said) >= 6, f"the mutants hardly reach anything: {said}"
    assert said["taken"] > count // 100
