"""What becomes of what was seen: windows, the store and the spool before it, OTLP, the log of requests, identifiers."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from headwatch.addresses import mask_url
from headwatch.config.kinds import Positive, Seconds


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
    min_free_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024 * 1024)] = 512 * 1024 * 1024
    """Free space below which an embedded store is not written to: what comes waits in the spool.  See docs/delivery.md."""
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
    """Incidents and releases, also in the drift folder."""

    def __repr__(self) -> str:
        """Return the fields with the password masked."""
        days = ", ".join(f"{name}={value}" for name, value in self.ttl_days().items())
        return f"StoreConfig(enabled={self.enabled}, url={mask_url(self.url)!r}, min_free_bytes={self.min_free_bytes}, {days})"

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
    log_days: Positive = 30
    """Age at which a file is put aside whatever its size, and after which one that was put aside is deleted."""


class PrivacyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which identifiers are hashed before anything is made of a request."""

    hash: list[Literal["user", "tenant", "document"]] = []
    rotate_days: Positive = 30
    """How long a salt is in use.  Afterwards the same identifier has another hash."""
    salts_file: str = ""
    """Where the salts are kept (0600).  Empty: beside the embedded store, or in ``$XDG_STATE_HOME/headwatch``."""
