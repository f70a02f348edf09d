"""What the plugin samples inside vLLM, and how it reaches the sidecar."""

from __future__ import annotations

from typing import Annotated

import msgspec

from headwatch.config.kinds import Detail, Positive, PrefillStride, Rate, RouteName, Seconds
from headwatch.model import SpanKind


class Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Text that an operator's prompts put around a span, for example ``<context>`` and ``</context>``."""

    kind: SpanKind
    start: Annotated[str, msgspec.Meta(min_length=1)]
    end: Annotated[str, msgspec.Meta(min_length=1)]


class RouteConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one route is sampled; what is not given is as for every other route."""

    sample_rate: Rate | None = None
    step_stride: Positive | None = None
    prefill_stride: PrefillStride | None = None
    detail: Detail | None = None


class CaptureConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the plugin samples.  Read once, when the engine starts; live control may change rates, strides and detail."""

    enabled: bool = True
    sample_rate: Rate = 0.1
    """Share of requests sampled, by a hash of the trace or request id: the same request on every rank and replica."""
    step_stride: Positive = 8
    """Of a sampled request, every how many decode rows one is summarised (counted from its first generated token)."""
    prefill_stride: PrefillStride = 0
    """Every how many prompt rows one is summarised; 0: only the last row of the prompt."""
    layers: tuple[int, ...] = ()
    """Global layer numbers; empty: all."""
    detail: Detail = 1
    """0: features.  1: span masses as well.  2: mass by block.  3: top positions.  4: whole rows, of few requests."""
    max_detail: Detail = 4
    """The highest level that a request may ask for in its field."""
    value_mass: bool = False
    """Whether span masses are measured a second time weighted by what they move, the norms of the values (detail 1 and up)."""
    block_tokens: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 16
    """Tokens in one block of a block profile; not the engine's page size, which differs between engines and layers."""
    top_k: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    """Top positions of each head and row (detail 3)."""
    max_full_requests: Positive = 1
    """Requests whose rows are sent whole (detail 4) at a time; further ones get detail 3."""
    max_full_bytes: Positive = 64 * 1024 * 1024
    """Whole rows of one request, in bytes over its life; further rows get detail 3."""
    max_detail_bytes: Positive = 16 * 1024 * 1024
    """What detail 2 to 4 may add to one engine step; further rows get as much detail as fits."""
    routes: dict[RouteName, RouteConfig] = {}
    """Routes (as the request field names them) that are sampled otherwise."""
    budget_share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.01
    """Largest share of step time that capture may take: beyond it rows are thinned, with weights; 1: no limit."""
    spare_core: bool = True
    """Whether the CPU kernel may compute on a core that the engine leaves free, where there is one; what it takes there counts
    for *budget_share* as well."""
    max_rows_per_step: Positive = 64
    max_documents: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 256
    max_field_bytes: Positive = 4 * 1024 * 1024
    """A larger request field is not parsed."""
    markers: tuple[Marker, ...] = ()
    error_limit: Positive = 8
    """So many errors in a row open the circuit breaker."""
    retry_seconds: Seconds = 60.0
    """How long the breaker stays open before one step is tried again."""
    instance: str = ""
    """``service.instance.id``; empty: host name and the engine's own id."""
    revision: str = ""
    """Model revision; empty: what the engine was started with."""


class WireConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The border between worker and sidecar."""

    endpoint: str = "tcp://127.0.0.1:9465"
    """ZeroMQ endpoint: the sidecar binds it, workers connect.  ``tcp://`` on loopback or ``ipc://``."""
    allow_remote: bool = False
    """Whether *endpoint* and *control_endpoint* may leave loopback, which *endpoint* may not with texts turned on.
    Anybody who reaches the port may send frames."""
    queue_frames: Positive = 256
    """Frames that the worker holds for a sidecar that is slow or away; the next one is dropped and counted."""
    queue_bytes: Positive = 64 * 1024 * 1024
    """The same bound by size, which long requests at a high detail reach first."""
    max_frame_bytes: Positive = 64 * 1024 * 1024
    """A larger frame is not sent, and not taken."""
    backlog_bytes: Positive = 64 * 1024 * 1024
    """Frames that the sidecar holds before it aggregates them; while they are more than half of it, requests are thinned."""
    status_seconds: Seconds = 2.0
    control_endpoint: str = "tcp://127.0.0.1:9466"
    """Where the sidecar publishes live control: it binds, workers and front ends connect."""
    control_secret_file: str = ""
    """File (0600) with the secret that authenticates live control, the same on both sides; empty: live control is off."""
    control_state_file: str = ""
    """Where the sidecar keeps what was ordered, the audit beside it.  Empty: beside the embedded store, or in
    ``$XDG_STATE_HOME/headwatch``."""
