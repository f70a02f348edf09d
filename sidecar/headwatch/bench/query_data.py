"""A month of a fleet, for ``headwatch bench query``.

For every replica and hour of 30 days one window of 1,024 heads, and for four replicas every minute of the last day:
histograms of real attention (:mod:`headwatch.bench.store_data`) that were merged by the store's own views, dealt out to
replicas and hours. Minutes enter where parsed series enter (``headwatch_head_points``) and reach every rung through the
views, as all windows do; hours enter where the rung below hands them up (``headwatch_heads_1h``) and reach the days.  What is
left out is the way before that, whose rows are gone by then: a month of the Collector's table would take hours to write.

One feature is written, ``lookback``.  The tables are sorted by feature, so what other features would add lies where no query
of this one reads.  Replicas are dealt to services, a sixteenth, a quarter and the rest: so queries of one service show how
cost grows.

Beside it every replica has a request every ten minutes with four documents each; 2,000 of them have their heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch.bench import store_data
from headwatch.bench.store_data import DAY_SECONDS
from headwatch.model import REQUEST_FEATURES
from headwatch_exporters.clickhouse.reading.head_history import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch_exporters.clickhouse.connection import Connection

FEATURE = "lookback"
LAYERS, HEADS = 32, 32
DAYS = 30
MINUTE_REPLICAS = 4
REQUEST_SECONDS = 600
"""Each replica has a request so often."""
REQUESTS_WITH_HEADS = 2000
_NOISE = "randNormal(0, 0.05, number)"
_MINUTE, _HOUR = 60, 3600
_VARIANTS = 4
_MINUTES_MERGED = 4
_SETTINGS = "SETTINGS insert_deduplicate = 0, max_block_size = 200000, optimize_on_insert = 1"
"""A block here has 200 minutes of the same heads, where the sidecar writes one at a time and merges go on all day: rows of one
key in a block are added up at once, or the last day would be read as millions of rows that no store of a sidecar has."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What was written."""

    replicas: int
    layers: int
    heads: int
    first: int
    """Start, seconds since 1970."""
    last: int
    services: dict[str, int]
    """Service to its replicas."""
    head_hours: int
    minute_head_windows: int


def build(connection: Connection, replicas: int, last: int, progress: Callable[[str], None]) -> Fleet:
    """Write the month before *last*, a full day in seconds since 1970, and return what was written.

    Raises:
        StoreError: The store refuses.
    """
    _template(connection, last - 3600)
    small, middle = max(replicas // 16, 1), max(replicas // 4, 2)
    services = {"small": small, "middle": middle, "large": replicas - small - middle}
    first = last - DAYS * DAY_SECONDS
    for replica in range(replicas):
        service = "small" if replica < small else "middle" if replica < small + middle else "large"
        progress(f"replica {replica + 1} of {replicas}")
        minutely = replica >= replicas - MINUTE_REPLICAS
        hours = (DAYS - 1) * 24 if minutely else DAYS * 24
        _windows(connection, service, replica, first, _HOUR, hours)
        if minutely:
            _windows(connection, service, replica, last - DAY_SECONDS, _MINUTE, DAY_SECONDS // _MINUTE)
    progress("requests")
    _requests(connection, replicas, first)
    heads = LAYERS * HEADS
    return Fleet(replicas, LAYERS, HEADS, first, last, services, replicas * DAYS * 24 * heads, MINUTE_REPLICAS * 1440 * heads)


def _template(connection: Connection, start_seconds: int) -> None:
    """Have the store merge a few windows of full size, and keep them aside; their own rows go again."""
    from headwatch_exporters.clickhouse.columns.metrics import window_columns  # noqa: PLC0415

    minutes = _VARIANTS * _MINUTES_MERGED
    for number, window in enumerate(store_data.windows(LAYERS, HEADS, 1, minutes, start_seconds)):
        connection.insert("otel_metrics_exp_histogram", window_columns(window, "template"), f"template:{number}")
    connection.command(
        f"""
        CREATE TABLE bench_template ENGINE = Memory AS
        SELECT intDiv(toMinute(time), {_MINUTES_MERGED}) AS variant, model, stratum, route, phase, context_band, layer, head,
               sum(weight) AS weight, sum(total) AS total, sum(zero_count) AS zero_count, sumForEach(buckets) AS buckets
        FROM headwatch_heads_1m WHERE feature = '{FEATURE}'
        GROUP BY variant, model, stratum, route, phase, context_band, layer, head ORDER BY variant, layer, head
        """  # noqa: S608 - constants
    )
    for table in ("otel_metrics_exp_histogram", *(f"headwatch_heads_{rung}" for rung in ("1m", "10m", "1h", "1d"))):
        connection.command(f"TRUNCATE TABLE {table}")


def _windows(connection: Connection, service: str, replica: int, first: int, step: int, number: int) -> None:
    """Write *number* windows of *replica*, one every *step* seconds."""
    keys = "model, stratum, route, phase, context_band, layer, head, weight, total, zero_count"
    names = ", ".join(f"b{bucket:02d}" for bucket in range(BUCKETS))
    columns = ", ".join(f"buckets[{bucket + 1}]" for bucket in range(BUCKETS))
    table, listed, values = (
        ("headwatch_head_points", "buckets", "buckets") if step == _MINUTE else ("headwatch_heads_1h", names, columns)
    )
    connection.command(
        f"""
        INSERT INTO {table} (time, service, instance, feature, {keys}, {listed})
        SELECT toDateTime({first} + step * {step}, 'UTC'), '{service}', 'engine-{replica:04d}', '{FEATURE}', {keys}, {values}
        FROM (SELECT number AS step FROM numbers({number})) AS n CROSS JOIN bench_template AS t
        WHERE t.variant = (n.step * 7 + {replica}) % {_VARIANTS}
        {_SETTINGS}
        """  # noqa: S608 - constants and numbers
    )


def _requests(connection: Connection, replicas: int, first: int) -> None:
    number = DAYS * DAY_SECONDS // REQUEST_SECONDS * replicas
    keys = {
        "time": f"fromUnixTimestamp64Nano(toInt64({first} + intDiv(number, {replicas}) * {REQUEST_SECONDS}) * 1000000000)",
        "service": "'large'",
        "model": "'model'",
        "route": "concat('route-', toString(number % 5))",
        "arm": "if(number % 2 = 0, 'a', 'b')",
        "request_id": "concat('chatcmpl-', hex(sipHash128(number)))",
        "engine_id": "concat('chatcmpl-', hex(sipHash128(number)), '-0')",
        "weight": "10",
    }
    every = f"numbers({number})"
    _insert(connection, "headwatch_requests", every, {
        **keys, "instance": f"concat('engine-', toString(number % {replicas}))", "prompt_tokens": "615", "rows_prefill": "1",
        "rows_decode": "8", "state": "if(number % 20 = 0, 'absent', 'measured')",
        "grounding_ratio": f"if(number % 20 = 0, NULL, 0.4 + {_NOISE})",
        "grounding_ratio_retrieval_heads": f"if(number % 20 = 0, NULL, 0.5 + {_NOISE})",
        "document_mass": f"0.3 + {_NOISE}", "documents": "4", "documents_found": "4", "duration_seconds": "4",
    })  # fmt: skip
    _insert(connection, "headwatch_documents", f"{every} ARRAY JOIN [0, 1, 2, 3] AS rank", {
        **keys, "rank": "rank", "document_id": "concat('doc-', toString((number * 7 + rank) % 500))", "kind": "'document'",
        "source": "concat('source-', toString(rank))", "found": "1", "share": f"greatest(0.25 + {_NOISE}, 0)", "tokens": "130",
    })  # fmt: skip
    some = f"(SELECT number * {number // REQUESTS_WITH_HEADS} AS number FROM numbers({REQUESTS_WITH_HEADS}))"  # noqa: S608
    cells = f"{some} ARRAY JOIN range({LAYERS * HEADS}) AS cell"
    values = {name: f"greatest(0.4 + randNormal(0, 0.05, {place}), 0)" for place, name in enumerate(REQUEST_FEATURES)}
    place = {"layer": f"intDiv(cell, {HEADS})", "head": f"cell % {HEADS}"}
    _insert(connection, "headwatch_request_heads", cells, {**keys, **place, **values})


def _insert(connection: Connection, table: str, numbers: str, columns: dict[str, str]) -> None:
    """Write a row for each number ``n`` of *numbers*."""
    listed = ", ".join(columns)
    values = ", ".join(columns.values())
    connection.command(f"INSERT INTO {table} ({listed}) SELECT {values} FROM {numbers} {_SETTINGS}")  # noqa: S608 - our own
