"""The request field as vLLM's front end reads it: strict, bounded, with one stable reason for each way to be wrong.

A field that cannot be used costs the request nothing but its documents: the caller records the reason and goes on.
Unknown keys are refused, because a misspelt ``retreived_at`` that is silently dropped is found months later.

The whole field is parsed for sampled requests only.  Every request with a field pays :func:`peek`, which skips over all
that does not bear on sampling: about 1 GB/s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from headwatch.client import FIELD_KEY
from headwatch.errors import RequestFieldError

if TYPE_CHECKING:
    from headwatch.config import CaptureConfig

__all__ = ["CONTEXT_KEY", "FIELD_KEY", "Field", "FieldDocument", "FieldSpan", "Head", "json_schema", "parse", "peek"]

CONTEXT_KEY = "headwatch.context"
"""Where the front end leaves the resolved context for the worker, in ``SamplingParams.extra_args``."""

Name = Annotated[str, msgspec.Meta(max_length=128)]
Text = Annotated[str, msgspec.Meta(max_length=512)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Traceparent = Annotated[str, msgspec.Meta(pattern="^$|^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]
Capture = bool | Literal["always", "full"]


class FieldDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document that the client put into the prompt: named, and found by its text or by token offsets."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    text: Annotated[str, msgspec.Meta(description="As it stands in the prompt.  Used to find it there, never stored.")] = ""
    kind: Literal["document", "memory", "tool"] = "document"
    source: Text = ""
    version: Text = ""
    retrieved_at: Text = ""
    labels: Annotated[dict[Name, Text], msgspec.Meta(max_length=32)] = {}
    start: Annotated[Offset | None, msgspec.Meta(description="First prompt token; only together with end.")] = None
    end: Annotated[Offset | None, msgspec.Meta(description="Prompt token after the last.")] = None


class FieldSpan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A span of the prompt that the client knows by token offsets.  Documents go under ``documents``, with an id."""

    kind: Literal["system", "user", "history", "tool", "image", "audio", "template"]
    start: Offset
    end: Offset
    age: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1, description="Turns back from the current one.")] = 0


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client tells headwatch of one request, as JSON in ``vllm_xargs["headwatch"]``."""

    capture: Annotated[
        Capture,
        msgspec.Meta(
            description='false: never sample this request; "always": sample it whatever the rate; "full": and every row of it.'
        ),
    ] = True
    detail: Annotated[
        int, msgspec.Meta(ge=0, le=4, description="Detail level wanted at least; capture.max_detail bounds it.")
    ] = 0
    traceparent: Traceparent = ""
    route: Name = ""
    arm: Name = ""
    language: Annotated[Name, msgspec.Meta(description="Language of the prompt: requests are compared within one.")] = ""
    template: Annotated[Name, msgspec.Meta(description="Version of the prompt template: likewise.")] = ""
    user: Annotated[Text, msgspec.Meta(description="Who asked; may be stored hashed, and purged by name.")] = ""
    tenant: Annotated[Text, msgspec.Meta(description="On whose behalf: likewise.")] = ""
    canary: Annotated[Name, msgspec.Meta(description="Name of a canary prompt; the request then counts as no traffic.")] = ""
    documents: list[FieldDocument] = []
    spans: list[FieldSpan] = []


class Head(msgspec.Struct, frozen=True):
    """The part of a field that decides about sampling."""

    capture: Capture = True
    traceparent: Traceparent = ""
    route: str = ""
    canary: str = ""

    @property
    def asked(self) -> bool:
        """Return whether the client wants the request sampled whatever the rate."""
        return isinstance(self.capture, str) or bool(self.canary)


_decode_field = msgspec.json.Decoder(Field).decode
_decode_head = msgspec.json.Decoder(Head).decode


def parse(text: object, config: CaptureConfig) -> Field:
    """Return the field in *text*, which is whatever the client sent.

    Raises:
        RequestFieldError: With reason ``not_a_string``, ``too_large``, ``malformed_json``, ``unknown_key``, ``bad_offsets``,
            ``invalid_value``, ``too_many_documents`` or ``too_many_spans``.
    """
    payload = _payload(text, config)
    try:
        field = _decode_field(payload)
    except msgspec.ValidationError as error:
        raise RequestFieldError(_reason(str(error)), f"request field: {error}") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RequestFieldError("malformed_json", f"request field is no JSON: {error}") from error
    for noun, items in (("documents", field.documents), ("spans", field.spans)):
        if len(items) > config.max_documents:
            raise RequestFieldError(
                f"too_many_{noun}", f"request field has {len(items)} {noun}; capture.max_documents is {config.max_documents}"
            )
    offsets = [(item.start, item.end) for item in field.documents] + [(item.start, item.end) for item in field.spans]
    for start, end in offsets:
        if (start is None) != (end is None):
            raise RequestFieldError("bad_offsets", f"a document has start {start} and end {end}: both or neither")
        if start is not None and end is not None and end <= start:
            raise RequestFieldError("bad_offsets", f"start {start} is not before end {end}")
    return field


def peek(text: object, config: CaptureConfig) -> Head:
    """Return what decides about sampling; the default where *text* cannot be read, which :func:`parse` will report."""
    try:
        return _decode_head(_payload(text, config))
    except (RequestFieldError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return Head()


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the field: the content of docs/request-field.schema.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Field)}


def _payload(text: object, config: CaptureConfig) -> bytes:
    if not isinstance(text, str):
        raise RequestFieldError("not_a_string", f"request field is {type(text).__name__}; it must be JSON in a string")
    if len(text) > config.max_field_bytes:  # before encoding: a character is at least one byte
        raise RequestFieldError("too_large", f"request field has {len(text)} characters, over {config.max_field_bytes} bytes")
    try:
        payload = text.encode()
    except UnicodeEncodeError as error:
        raise RequestFieldError("malformed_json", f"request field is no Unicode text: {error}") from error
    if len(payload) > config.max_field_bytes:
        raise RequestFieldError("too_large", f"request field has {len(payload)} bytes, over {config.max_field_bytes}")
    return payload


def _reason(message: str) -> str:
    if "unknown field" in message:
        return "unknown_key"
    return "bad_offsets" if message.endswith((".start`", ".end`")) else "invalid_value"
