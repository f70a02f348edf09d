"""What can be configured: one frozen object, its sections and their defaults.

Where the values come from is in :mod:`headwatch.config_file`.  The worker and the sidecar read the same file: capture takes
``[capture]`` and ``[wire]``, the sidecar the rest.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from headwatch.addresses import mask_url
from headwatch.model import SpanKind

Rate = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0.0)]
LAST_PORT = 65535
Port = Annotated[int, msgspec.Meta(ge=0, le=LAST_PORT)]
PrefillStride = Annotated[int, msgspec.Meta(ge=0)]
Detail = Annotated[int, msgspec.Meta(ge=0, le=4)]
RouteName = Annotated[str, msgspec.Meta(max_length=128)]


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
    """Whether *endpoint* and *control_endpoint* may leave loopback.  Frames carry no text, but anybody who reaches the
    port may send some."""
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


class HttpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sidecar's one HTTP port."""

    host: str = "127.0.0.1"
    port: Port = 9464
    allow_remote: bool = False
    """Whether *host* may leave loopback.  Reading has no authentication yet: see docs/security.md."""
    token_file: str = ""
    """File (0600) with the bearer token that changing anything through HTTP needs; empty: nothing can be changed."""


class WindowConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How rows become windows."""

    seconds: Seconds = 60.0
    """Length of a window, aligned to the clock."""
    request_idle_seconds: Seconds = 120.0
    """A request that sends no row for so long is taken as ended."""
    requests: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Close a window when so many sampled requests have ended, instead of by the clock; 0: by the clock."""
    max_strata: Positive = 64
    """Strata held at once; rows of further ones are counted under the stratum ``other``."""
    max_open_requests: Positive = 4096


class EvidenceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Single rows of detail 2 and more, on their way to the store."""

    max_bytes: Positive = 64 * 1024 * 1024
    """Rows that wait for the store; further ones are dropped and counted."""
    max_request_bytes: Positive = 128 * 1024 * 1024
    """Rows of one request over its life; further ones are dropped and counted."""


class GroundingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which heads read documents."""

    head_map: str = ""
    """Path of a head map (JSON) with the model's retrieval heads; empty: ratios over all heads only."""


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where everything is kept."""

    enabled: bool = True
    url: str = ""
    """``chdb:///absolute/path`` (embedded) or ``http(s)://user:password@host:8123/database`` (a server).  Empty:
    ``$XDG_STATE_HOME/headwatch/store``."""
    head_ttl_days: Positive = 1
    """Per-head series in the Collector's tables."""
    minute_ttl_days: Positive = 7
    """Windows of single heads, typed: what the rungs above are made of."""
    ten_minute_ttl_days: Positive = 14
    """The same by ten minutes, ..."""
    hour_ttl_days: Positive = 60
    """... by the hour, ..."""
    day_ttl_days: Positive = 400
    """... and by the day."""
    evidence_ttl_days: Positive = 30
    """Requests, documents and request heads."""
    row_ttl_days: Positive = 7
    """Single rows of detail 2 and more."""
    incident_ttl_days: Positive = 400
    """Incidents and releases."""

    def __repr__(self) -> str:
        """Return the fields with the password masked."""
        days = ", ".join(f"{name}={value}" for name, value in self.ttl_days().items())
        return f"StoreConfig(enabled={self.enabled}, url={mask_url(self.url)!r}, {days})"

    def ttl_days(self) -> dict[str, int]:
        """Return how long each kind of row is kept, by the name of its setting."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if name.endswith("_ttl_days")}


class SpoolConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is on its way to the store, on disk: see docs/delivery.md."""

    folder: str = ""
    """Empty: beside the embedded store, ``<store>.spool``; of a store by URL, ``$XDG_STATE_HOME/headwatch/spool``."""
    max_bytes: Annotated[int, msgspec.Meta(ge=1024 * 1024)] = 2 * 1024 * 1024 * 1024
    """What the spool may take on disk; beyond it the oldest makes room, and is counted."""
    fsync: Literal["always", "interval"] = "always"
    """``always``: every record is on disk before it counts as spooled.  ``interval``: every *fsync_seconds*, and a loss of
    power loses what came since; a kill of the process loses nothing either way."""
    fsync_seconds: Seconds = 1.0


class ClickHouseUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may read through the ClickHouse endpoint, and what of it."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    secret_file: Annotated[str, msgspec.Meta(min_length=1)]
    """File (0600) with the password, which is a bearer token as well."""
    services: tuple[str, ...] = ()
    """Only rows of these services; empty: all."""
    routes: tuple[str, ...] = ()
    """Only rows of these routes; empty: all."""


class ClickHouseConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The read-only ClickHouse endpoint over the embedded store, at ``/clickhouse`` of the HTTP port."""

    enabled: bool = True
    users: tuple[ClickHouseUser, ...] = ()
    """Empty: whoever reaches loopback may read; beyond loopback nobody may."""
    max_running: Positive = 4
    """Queries at once; further ones wait."""
    max_waiting: Annotated[int, msgspec.Meta(ge=0)] = 64
    queue_seconds: Seconds = 10.0
    """How long a query waits for its turn."""
    max_execution_seconds: Seconds = 30.0
    max_memory_bytes: Positive = 256 * 1024 * 1024
    """Of one query."""
    max_result_rows: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Rows of one answer; 0: no limit."""
    max_result_bytes: Annotated[int, msgspec.Meta(ge=0)] = 1024 * 1024 * 1024
    """Bytes of one answer before it is formatted; 0: no limit."""
    max_read_rows: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Rows that one query may read; 0: no limit."""
    max_read_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Bytes that one query may read; 0: no limit."""
    max_threads: Positive = 2
    """Threads of one query."""
    max_query_bytes: Positive = 256 * 1024


class OtlpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Export by OTLP; off while *endpoint* is empty."""

    endpoint: str = ""
    """``http://host:4317`` for gRPC; for HTTP the whole address, with ``/v1/metrics``."""
    traces_endpoint: str = ""
    """The same for spans of sampled requests in their callers' traces, for HTTP with ``/v1/traces``.  Empty: none are sent."""
    protocol: Literal["grpc", "http"] = "grpc"
    insecure: bool = True
    timeout_seconds: Seconds = 10.0

    def __repr__(self) -> str:
        """Return the fields with the password masked."""
        return (f"OtlpConfig(endpoint={mask_url(self.endpoint)!r}, traces_endpoint={mask_url(self.traces_endpoint)!r}, "
                f"protocol={self.protocol!r}, insecure={self.insecure}, "
                f"timeout_seconds={self.timeout_seconds})")


class RequestsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The log of sampled requests, a line of JSON each."""

    log_path: str = ""
    """A file (0600), or ``-`` for standard output.  Empty: there is no log."""
    log_max_bytes: Positive = 64 * 1024 * 1024
    """Size at which a file is put aside as ``PATH.1``."""
    log_files: Positive = 5
    """Files that are kept, the current one among them."""


class PrivacyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which identifiers are hashed before anything is made of a request."""

    hash: list[Literal["user", "tenant", "document"]] = []
    rotate_days: Positive = 30
    """How long a salt is in use.  Afterwards the same identifier has another hash."""
    salts_file: str = ""
    """Where the salts are kept (0600).  Empty: beside the embedded store, or in ``$XDG_STATE_HOME/headwatch``."""


class PrometheusConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``/metrics`` shows of the heads."""

    layer_bands: Positive = 4
    worst_heads: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10


class DriftConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How drift is detected.  One promise for everything: the mean time between false alarms."""

    enabled: bool = True
    shadow: bool = False
    """Detect and record what would have paged; open no incident that pages."""
    shadow_families: tuple[str, ...] = ()
    """Families that are judged on a clock of their own, recorded, and page nobody."""
    false_alarm_days: Annotated[float, msgspec.Meta(gt=0.0)] = 30.0
    """The promised mean time between false alarms of this sidecar, all strata, features and families together."""
    interval_windows: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """The same promise in windows, for windows that close by count; 0: from *false_alarm_days* and the window's length."""
    min_baseline_windows: Positive = 1440
    """No page against a shorter baseline (default: one day of windows of a minute)."""
    max_baseline_windows: Positive = 10080
    learning_lag_windows: Annotated[int, msgspec.Meta(ge=0)] = 120
    """A baseline never learns from the latest windows: drift that is not yet found must not become normal."""
    min_stratum_rows: Annotated[float, msgspec.Meta(ge=0.0)] = 4.0
    """A stratum with fewer rows a window in its baseline (the median) is pooled with the others of its model and phase."""
    family_weights: dict[str, Annotated[float, msgspec.Meta(ge=0.0)]] = {}
    """Weights on the one clock, by family; what is not named keeps its default."""
    route_weights: dict[RouteName, Annotated[float, msgspec.Meta(ge=0.0)]] = {}
    """Weights of strata and scopes by their route; what is not named has 1."""
    feature_weights: dict[str, Annotated[float, msgspec.Meta(ge=0.0)]] = {}
    """Weights of features and signals; what is not named has 1."""
    resolve_windows: Positive = 5
    """Effects must be back inside for so many windows before an incident resolves by itself."""
    folder: str = ""
    """Where state, history, baselines and incidents are kept; empty: beside the embedded store, ``<store>.drift``."""
    history_bytes: Positive = 2 * 1024 * 1024 * 1024
    """Windows kept for learning and backtests; the oldest make room."""


class CanaryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fixed prompts through the server's own endpoint."""

    endpoint: str = ""
    """``http://127.0.0.1:8000``, the OpenAI server to ask; empty: no canaries are sent."""
    model: str = ""
    """Served model name; empty: the first one that the server lists."""
    interval_seconds: Seconds = 300.0
    timeout_seconds: Seconds = 30.0
    api_key_file: str = ""
    """File (0600) with the server's API key; empty: none is sent."""
    allow_remote: bool = False
    """Whether *endpoint* may leave loopback."""
    fingerprint: str = ""
    """Fingerprint that runs are held against; empty: the one pinned in the drift folder."""
    prompts: str = ""
    """TOML file of one's own prompts; empty: headwatch's."""


class IncidentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a person is told."""

    route: Literal["none", "webhook", "alertmanager", "grafana"] = "none"
    """The one route that pages; the others mirror it where they are configured."""
    webhook_url: str = ""
    webhook_secret_file: str = ""
    """File (0600) with the secret of the webhook's HMAC."""
    alertmanager_url: str = ""
    grafana_url: str = ""
    grafana_token_file: str = ""
    runbook_url: str = "https://github.com/headwatch/headwatch/blob/main/docs/runbooks"
    """Where runbooks are read; ``/<class>.md`` is added."""
    console_url: str = ""
    """Where those who are paged reach the sidecar's HTTP port, for links; empty: as it is bound."""
    reopen_seconds: Seconds = 3600.0
    """Evidence of the same cause within so long after it was resolved reopens an incident instead of opening another."""
    retry_seconds: Seconds = 5.0
    """First pause between attempts to send a page; doubled each time, with jitter."""

    def __repr__(self) -> str:
        """Return the fields with passwords masked."""
        urls = ", ".join(f"{name}={mask_url(getattr(self, name))!r}"
                         for name in ("webhook_url", "alertmanager_url", "grafana_url"))
        return f"IncidentConfig(route={self.route!r}, {urls}, reopen_seconds={self.reopen_seconds})"


class ServiceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """OpenTelemetry resource attributes."""

    name: str = "vllm"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that is in force."""

    capture: CaptureConfig = CaptureConfig()
    wire: WireConfig = WireConfig()
    http: HttpConfig = HttpConfig()
    window: WindowConfig = WindowConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    grounding: GroundingConfig = GroundingConfig()
    store: StoreConfig = StoreConfig()
    spool: SpoolConfig = SpoolConfig()
    clickhouse: ClickHouseConfig = ClickHouseConfig()
    otlp: OtlpConfig = OtlpConfig()
    requests: RequestsConfig = RequestsConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    prometheus: PrometheusConfig = PrometheusConfig()
    drift: DriftConfig = DriftConfig()
    canary: CanaryConfig = CanaryConfig()
    incident: IncidentConfig = IncidentConfig()
    service: ServiceConfig = ServiceConfig()
