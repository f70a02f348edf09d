"""What a spool says of itself: as health, as metrics, and as reasons not to be ready."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from headwatch.config import PrometheusConfig
from headwatch.delivery import ExporterThread
from headwatch.health import Health, SpoolHealth, spool_reasons
from headwatch.records import Delivery
from headwatch_exporters.memory import MemoryExporter
from headwatch_exporters.prometheus import PrometheusExporter

from .records import SECOND

NOW_NS = 1_000 * SECOND
SPOOL = SpoolHealth(
    up=True, last_error="", disk_bytes=5_000, max_bytes=1 << 20, records=2, oldest_ns=NOW_NS - 40 * SECOND, sent_records=7,
    sent_batches=21, sent_rows=900, send_errors=3, errors={"store_unavailable": 3},
    dropped_batches={"full:otel_metrics_sum": 4}, dropped_rows={"full:otel_metrics_sum": 80, "encode:headwatch_rows": 1},
    aside_batches=1, last_duration_seconds=0.5,
)  # fmt: skip


def test_an_exporter_with_a_spool_has_exported_what_has_arrived():
    spool = SPOOL
    thread = ExporterThread(MemoryExporter(), spool=lambda: spool)
    health = thread.health()
    assert (health.up, health.exported_batches, health.exported_points, health.errors) == (True, 7, 900, 3)
    assert (health.last_duration_seconds, health.queue_batches, health.spool) == (0.5, 0, SPOOL)
    spool = replace(SPOOL, up=False, last_error="connection refused")
    assert (thread.health().up, thread.health().last_error) == (False, "connection refused")
    assert ExporterThread(MemoryExporter()).health().spool is None


def test_health_crosses_the_api_as_it_is():
    health = Health(NOW_NS, (), {}, {"clickhouse": ExporterThread(MemoryExporter(), spool=lambda: SPOOL).health()})
    assert msgspec.json.decode(msgspec.json.encode(health), type=Health) == health


def test_every_figure_is_a_metric():
    exporter = PrometheusExporter(PrometheusConfig())
    health = ExporterThread(MemoryExporter(), spool=lambda: SPOOL).health()
    exporter.export(Delivery(NOW_NS, "vllm", (), (), Health(NOW_NS, (), {}, {"clickhouse": health})))
    text = exporter.render(None)[0].decode()
    lines = [line for line in text.splitlines() if line.startswith("headwatch_spool")]
    assert sorted(lines) == sorted([
        "headwatch_spool_bytes 5000.0",
        "headwatch_spool_limit_bytes 1.048576e+06",
        "headwatch_spool_records 2.0",
        "headwatch_spool_age_seconds 40.0",
        "headwatch_spool_sent_total 21.0",
        "headwatch_spool_aside_total 1.0",
        'headwatch_spool_errors_total{headwatch_reason="store_unavailable"} 3.0',
        'headwatch_spool_dropped_batches_total{headwatch_reason="full",headwatch_table="otel_metrics_sum"} 4.0',
        'headwatch_spool_dropped_total{headwatch_reason="full",headwatch_table="otel_metrics_sum"} 80.0',
        'headwatch_spool_dropped_total{headwatch_reason="encode",headwatch_table="headwatch_rows"} 1.0',
    ])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"disk_bytes": 800_000}, []),
        ({"disk_bytes": 900_000}, ["the spool is 86% full"]),
        ({"oldest_ns": NOW_NS - 301 * SECOND}, ["the oldest of 2 deliveries waits for the store since 301 s"]),
        ({"oldest_ns": 0, "records": 0}, []),
    ],
)
def test_a_spool_that_fills_up_or_waits_long_is_a_reason(changes: dict, words: list[str]):
    reasons = spool_reasons(replace(SPOOL, **changes), NOW_NS)
    assert len(reasons) == len(words)
    assert all(reason.startswith(word) for reason, word in zip(reasons, words, strict=True))
