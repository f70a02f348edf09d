"""The nouns that cross the process border: what a span, a request, a summary, a status are.

Frozen msgspec structs without behaviour, encoded by :mod:`headwatch.wire`.  What stays in the sidecar is in
:mod:`headwatch.records` and :mod:`headwatch.health`.  The definition of each feature is in docs/architecture.md, its arithmetic
in :mod:`headwatch.capture.kernels.oracle`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import msgspec

if TYPE_CHECKING:
    Column = bytes | memoryview
else:
    Column = memoryview
"""Bytes of a column: decoded as a view of the frame, never copied, and encoded from either."""

SpanKind = Literal[
    "system", "user", "history", "tool", "document", "memory", "image", "audio", "generated", "template"
]
SPAN_KINDS: tuple[SpanKind, ...] = get_args(SpanKind)
DOCUMENT_KINDS: tuple[SpanKind, ...] = ("document", "memory", "tool")
"""Kinds that a client may give to a named document.  Only ``document`` counts as grounding."""

FEATURES = ("entropy", "max_weight", "sink_mass", "local_mass", "distance", "lookback")
"""The scalar features of one head for one query row, in wire order."""
LOCAL_TOKENS = 32
"""``local_mass`` is the mass on this many last positions, the query's own included."""
CANARY_ROWS = 8
"""Rows that are summarised of a canary: the last so many of its prompt, always and whole, whatever strides and budget say."""
SINK_SATURATED = 0.999
"""Above this sink mass a head has no document mass to speak of: it is undefined, not infinite."""

REQUEST_FEATURES = (*FEATURES, "document_mass")
"""What is kept for a request and head: means over the rows that were sampled."""
WINDOW_FEATURES = (*REQUEST_FEATURES, *(f"span_mass.{kind}" for kind in SPAN_KINDS))
"""What is kept for a window and head, as histograms."""
VALUE_FEATURES = tuple(f"value_share.{kind}" for kind in SPAN_KINDS)
"""Further features of a window, where frames carry value masses: the part of what a head moves that comes from each kind."""
REQUEST_VALUES = ("document_value_share", "output_norm")
"""What a request keeps of them for each head: the part from documents, and the norm of the output."""
HEAD_FEATURES = (*REQUEST_FEATURES, *REQUEST_VALUES)
"""Everything that is kept for a request and head."""

HISTORY_AGES = 4
"""Ages of earlier turns that are told apart: 1, 2, 3, and 4 with everything older."""

Phase = Literal["prefill", "decode"]
PHASES: tuple[Phase, ...] = ("prefill", "decode")
"""A row is ``decode`` where the query is a generated token, ``prefill`` where it is a token of the prompt."""

TextKind = Literal["prompt"]
"""Whose text it is."""

AttentionKind = Literal["self", "cross"]
"""``cross``: the positions are those of an encoder's input (audio), not of the prompt."""

GroundingState = Literal["measured", "absent", "unresolved"]
"""``absent``: the request named no documents.  ``unresolved``: its documents could not be used (its field was rejected,
none was found in the prompt), or no generated row was sampled."""
FIELD_REJECTED = frozenset(
    (
        "not_a_string", "malformed_json", "invalid_value", "unknown_key", "bad_offsets",
        "too_large", "too_many_documents", "too_many_spans",
    )
)
"""Reasons in :attr:`RequestContext.errors` for which the whole request field was put aside, its documents with it."""


class Span(msgspec.Struct, frozen=True, array_like=True):
    """A run of prompt positions ``[start, end)`` of one kind.

    ``document`` indexes :attr:`RequestContext.documents` (-1: none).  ``age`` counts conversation turns back from the
    current one (0), so that each earlier turn is a span of its own.
    """

    kind: SpanKind
    start: int
    end: int
    document: int = -1
    age: int = 0


class Document(msgspec.Struct, frozen=True):
    """What the client says of one document that it put into the prompt.  Never its text."""

    id: str
    kind: SpanKind = "document"
    source: str = ""
    version: str = ""
    retrieved_at: str = ""
    labels: dict[str, str] = {}
    found: bool = True
    """Whether its text was located in the prompt."""


class RequestContext(msgspec.Struct, frozen=True):
    """Everything the sidecar needs to know of a sampled request, resolved in vLLM's front end.

    The spans partition ``[0, prompt_tokens)``; positions from ``prompt_tokens`` on are ``generated``.
    """

    request_id: str
    """The id that the client sees (``chatcmpl-…``)."""
    prompt_tokens: int
    spans: list[Span]
    documents: list[Document] = []
    engine_id: str = ""
    """The engine's own id, unique for each sample of a request with n > 1.  Filled in by the worker."""
    route: str = ""
    arm: str = ""
    """Arm of an experiment."""
    adapter: str = ""
    trace_id: str = ""
    parent_span_id: str = ""
    errors: list[str] = []
    """Reasons of what could not be used in the client's field, for example ``document_not_in_prompt``."""
    weight: float = 1.0
    """How many requests this one stands for: one over the probability with which it was sampled."""
    full: bool = False
    """Whether every row is wanted, whatever the strides say (``"capture": "full"``)."""
    detail: int = 0
    """The detail level that the client asked for; rows get it or what the settings say, whichever is more."""
    encoder_spans: list[Span] = []
    """What the encoder's input consists of, for models with cross-attention; they partition all of it."""
    language: str = ""
    """Language of the prompt, as the client names it (``de``); what is not named is not held equal."""
    template: str = ""
    """Version of the client's prompt template, likewise."""
    user: str = ""
    """Who asked, as the client names them; hashed in the sidecar where ``privacy.hash`` says so."""
    tenant: str = ""
    """On whose behalf, likewise."""
    canary: str = ""
    """Name of the canary prompt that this is: it counts in no statistics of traffic."""
    prompt_digest: str = ""
    """Eight hex digits that stand for the tokens of the prompt's system and template spans; empty where it has none."""


class WorkerIdentity(msgspec.Struct, frozen=True):
    """Which worker of which engine a frame comes from.  ``start_ns`` tells one life of it from the next."""

    instance: str
    """``service.instance.id``: one engine, shared by its ranks."""
    rank: int
    start_ns: int
    model: str
    revision: str
    dtype: str
    layers: int
    """Attention layers of the whole model."""
    heads: int
    """Query heads of the whole model in one layer (the largest, where layers differ)."""
    engine_version: str
    ranks: int = 1
    """Workers of the engine, tensor and pipeline parallel ones together: each sends its part of every sampled row."""


class SummaryBatch(msgspec.Struct, frozen=True, tag="summary"):
    """Head summaries of the rows sampled in one engine step: the unit on the wire.

    Columns are little-endian bytes; :mod:`headwatch.wire.columns` views them as arrays.  A frame stands alone: it carries
    the context of every request it has rows of, so that a sidecar may start at any time.
    """

    worker: WorkerIdentity
    sequence: int
    """Counts frames of this worker, dropped ones included: a gap is a loss."""
    time_ns: int
    layers: list[int]
    """Global numbers of the layers summarised, ascending."""
    heads: int
    """Query heads in each of these layers on this rank."""
    head_offset: int
    """Global number of this rank's first head."""
    requests: list[RequestContext]
    row_request: Column
    """int32 [rows]: index into ``requests``."""
    row_position: Column
    """int32 [rows]: position of the query token."""
    features: Column
    """float32 [rows, layers, heads, len(FEATURES)]; NaN where undefined."""
    span_mass: Column
    """float32: for each row in turn [spans of its request + 1, layers, heads]; the last span is the generated text.  In a
    frame of cross-attention the spans are ``encoder_spans``, and the last one is empty."""
    finished: list[str] = []
    """Engine ids of sampled requests that ended."""
    attention: AttentionKind = "self"
    detail: int = 1
    """The detail level of these rows, which says which of the columns below are filled."""
    row_weight: Column = b""
    """float32 [rows]: how many rows each one stands for (the inverse of its probability); empty: 1 each."""
    value_mass: Column = b""
    """float32, shaped as ``span_mass``: Σ ‖a_j v_j‖ over each span; empty where it is not asked for."""
    output_norm: Column = b""
    """float32 [rows, layers, heads]: the norm of each head's output; empty where ``value_mass`` is."""
    block_tokens: int = 0
    """Tokens in one block of ``block_profile``."""
    block_profile: Column = b""
    """uint8: for each row in turn [ceil((position + 1) / block_tokens), layers, heads], mass on a log scale (detail 2)."""
    top_k: int = 0
    top_position: Column = b""
    """int32 [rows, layers, heads, top_k]: the positions of the largest weights, largest first; -1: none (detail 3)."""
    top_weight: Column = b""
    """float32 [rows, layers, heads, top_k]."""
    full_weight: Column = b""
    """float16: for each row in turn [position + 1, layers, heads] (detail 4)."""
    centroid: Column = b""
    """float32 [rows, layers, heads], of cross-attention only: where in the encoder's input a head looks, Σ a_j j / (n - 1)."""


class StatusFrame(msgspec.Struct, frozen=True, tag="status"):
    """What a worker says of itself every few seconds.  All counts are cumulative since ``worker.start_ns``."""

    worker: WorkerIdentity
    sequence: int
    """The sequence number that the next summary frame will carry."""
    time_ns: int
    up: bool
    reason: str
    """Why capture is down; empty while it is up."""
    counters: dict[str, int]
    """``steps sampled_steps rows_planned rows_sent rows_dropped rows_refused frames_sent frames_dropped``."""
    errors: dict[str, int]
    refused_layers: dict[str, str]
    """Layer name to reason."""
    capture_seconds: float
    step_seconds: float
    sample_rate: float
    step_stride: int
    runner: str
    backend: str
    kernel: str = ""
    """Name of the row kernel that runs."""
    budget_stride: int = 1
    """The factor by which the budget controller thins rows at the moment; 1: not at all."""
    detail: int = 1
    control_epoch: int = 0
    """Number of the control message that is in force; 0: the configuration file's settings."""
    left_out: dict[str, str] = {}
    """Layers that do not attend to a request's positions (state-space and linear layers, encoders): name to why."""


class TextFrame(msgspec.Struct, frozen=True, tag="text"):
    """The beginning of one sampled prompt, as the front end has it: neither redacted nor encrypted.

    Sent only where ``text.enabled`` is on.  Its ``repr`` shows no text, nor may any message of ours.
    """

    source: str
    """Stands for one front-end process and its life."""
    sequence: int
    """Counts texts of this source, dropped ones included: a gap is a loss."""
    time_ns: int
    model: str
    context: RequestContext
    """Of its request, without spans; ``engine_id`` is not known yet."""
    kind: TextKind
    text: str
    chars: int
    """Of the whole text, as far as it is known: more than came where it was cut."""

    def __repr__(self) -> str:
        """Return what tells the frame from others, without any text or identifier."""
        return f"TextFrame(source={self.source!r}, sequence={self.sequence}, kind={self.kind!r}, chars={self.chars})"


Frame = SummaryBatch | StatusFrame | TextFrame
