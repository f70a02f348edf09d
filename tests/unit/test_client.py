"""The field that a client builds is one that the server reads."""

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from headwatch.capture.request.field import Field, FieldDocument, FieldSpan, parse
from headwatch.client import request_field
from headwatch.config import CaptureConfig
from headwatch.errors import RequestFieldError

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Chunk:
    """What a retriever of one's own may return."""

    id: str
    text: str
    source: str
    score: float


def test_everything_a_client_says_arrives():
    field = request_field(
        documents=[
            {
                "id": "a",
                "text": 'Überfluss\n"quoted"',
                "kind": "memory",
                "source": "wiki",
                "version": "3",
                "retrieved_at": datetime(2026, 1, 2, tzinfo=UTC),
                "labels": {"tenant": "x", "rank": 1},
            },
            {"id": "b", "start": 3, "end": 9},
        ],
        spans=[{"kind": "history", "start": 0, "end": 2, "age": 4}],
        route="support",
        arm="B",
        traceparent=TRACEPARENT,
        capture="always",
    )
    assert list(field) == ["headwatch"]
    assert parse(field["headwatch"], CaptureConfig()) == Field(
        capture="always",
        traceparent=TRACEPARENT,
        route="support",
        arm="B",
        documents=[
            FieldDocument("a", 'Überfluss\n"quoted"', "memory", "wiki", "3", "2026-01-02T00:00:00+00:00",
                          {"tenant": "x", "rank": "1"}),
            FieldDocument("b", start=3, end=9),
        ],
        spans=[FieldSpan("history", 0, 2, 4)],
    )


def test_a_document_may_start_at_token_0():
    documents = json.loads(request_field(documents=[{"id": "a", "start": 0, "end": 1}])["headwatch"])["documents"]
    assert documents == [{"id": "a", "start": 0, "end": 1}]


def test_documents_may_be_objects_with_more_than_is_asked_for():
    documents = json.loads(request_field(documents=[Chunk("a", "text", "s3", 0.9)])["headwatch"])["documents"]
    assert documents == [{"id": "a", "text": "text", "source": "s3"}]


def test_opting_out_says_nothing_else():
    assert request_field(capture=False) == {"headwatch": '{"capture":false}'}


def test_a_misspelt_key_is_an_error_where_it_is_written():
    with pytest.raises(RequestFieldError, match="retreived_at"):
        request_field(documents=[{"id": "a", "retreived_at": "now"}])
    with pytest.raises(RequestFieldError, match="needs an id"):
        request_field(documents=[{"text": "no name"}])


def test_importing_the_client_loads_nothing_heavy():
    """A client application has no vLLM; importing headwatch must not cost it anything either."""
    code = (
        "import sys, time; t = time.perf_counter(); import headwatch; headwatch.request_field; "
        "took = time.perf_counter() - t; heavy = {'numpy', 'torch', 'msgspec', 'zmq', 'vllm'} & set(sys.modules); "
        "assert not heavy, heavy; print(took)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert min(float(run.stdout) for run in runs) < 0.1
