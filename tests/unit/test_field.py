"""The request field as the server reads it: every way to be wrong has its reason, and none gets past."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.capture.request.field import Field, Head, json_schema, parse, peek
from headwatch.config import CaptureConfig
from headwatch.errors import RequestFieldError

CONFIG = CaptureConfig(max_documents=3, max_field_bytes=1000)
SCHEMA = Path(__file__).parents[2] / "docs" / "request-field.schema.json"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "malformed_json"),
        ("", "malformed_json"),
        ("[" * 900, "invalid_value"),
        ('{"route": "\ud800"}', "malformed_json"),
        ("[]", "invalid_value"),
        (7, "not_a_string"),
        ({"route": "a"}, "not_a_string"),
        ('{"route": 5}', "invalid_value"),
        ('{"route": "%s"}' % ("x" * 129), "invalid_value"),
        ('{"capture": "sometimes"}', "invalid_value"),
        ('{"traceparent": "00-zz"}', "invalid_value"),
        ('{"documents": [{"text": "no id"}]}', "invalid_value"),
        ('{"documents": [{"id": "a", "kind": "user"}]}', "invalid_value"),
        ('{"rout": "a"}', "unknown_key"),
        ('{"documents": [{"id": "a", "retreived_at": ""}]}', "unknown_key"),
        ('{"documents": [{"id": "a", "start": 3}]}', "bad_offsets"),
        ('{"documents": [{"id": "a", "start": 3, "end": 3}]}', "bad_offsets"),
        ('{"documents": [{"id": "a", "start": -1, "end": 3}]}', "bad_offsets"),
        ('{"spans": [{"kind": "user", "start": 5, "end": 2}]}', "bad_offsets"),
        ('{"spans": [{"kind": "generated", "start": 0, "end": 2}]}', "invalid_value"),
        (json.dumps({"documents": [{"id": str(n)} for n in range(4)]}), "too_many_documents"),
        (json.dumps({"spans": [{"kind": "user", "start": n, "end": n + 1} for n in range(4)]}), "too_many_spans"),
        ('{"route": "%s"}' % ("x" * 1000), "too_large"),
        ('{"route": "%s"}' % ("\u20ac" * 400), "too_large"),
    ],
)
def test_what_cannot_be_used_has_a_stable_reason(text: object, reason: str):
    with pytest.raises(RequestFieldError) as caught:
        parse(text, CONFIG)
    assert caught.value.reason == reason


@given(st.text() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | (
    st.dictionaries(st.sampled_from(["documents", "spans", "id", "start", "end", "capture", "x"]), inner))).map(json.dumps))
def test_whatever_a_client_sends_it_is_a_field_or_a_request_field_error(text: str):
    peek(text, CONFIG)
    with contextlib.suppress(RequestFieldError):
        assert isinstance(parse(text, CONFIG), Field)


def test_peek_reads_what_bears_on_sampling_and_passes_over_errors_elsewhere():
    assert peek('{"documents": [{"id": 5}], "capture": false}', CONFIG) == Head(capture=False)
    assert peek('{"documents": 5, "capture": "full", "route": "hr"}', CONFIG) == Head("full", route="hr")
    assert [Head(capture).asked for capture in (True, False, "always", "full")] == [False, False, True, True]  # type: ignore[arg-type]
    assert peek("{", CONFIG) == Head()
    assert peek(None, CONFIG) == Head()


def test_the_published_schema_is_current():
    """Regenerate: python -c 'import json; from headwatch.capture.request.field import json_schema; print(json.dumps(
    json_schema(), indent=2))' > docs/request-field.schema.json
    """
    assert json.loads(SCHEMA.read_text()) == json_schema()
