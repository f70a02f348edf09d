"""What the sidecar lets others read: HTTP, the ClickHouse endpoint, Prometheus."""

from __future__ import annotations

from typing import Annotated

import msgspec

from headwatch.config.kinds import Port, Positive, Seconds


class HttpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sidecar's one HTTP port."""

    host: str = "127.0.0.1"
    port: Port = 9464
    allow_remote: bool = False
    """Whether *host* may leave loopback.  Reading has no authentication yet: see docs/security.md."""
    token_file: str = ""
    """File (0600) with the bearer token that changing anything through HTTP needs; empty: nothing can be changed."""


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


class AuditConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Reads through the API and the ClickHouse endpoint, a line of JSON each, in a file of its own."""

    path: str = ""
    """A file (0600).  Empty: they stand in the log alone."""
    max_bytes: Positive = 64 * 1024 * 1024
    """Size at which the file is put aside as ``PATH.1``."""
    files: Positive = 5
    """Files that are kept, the current one among them."""
    days: Positive = 400
    """Age at which a file is put aside whatever its size, and after which one that was put aside is deleted."""


class PrometheusConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``/metrics`` shows of the heads."""

    layer_bands: Positive = 4
    worst_heads: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10
