"""Half an hour of synthetic traffic, written by the real ClickHouse exporter, for the queries of the dashboard."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from headwatch.config import StoreConfig
from headwatch.findings import BaselineInForce, FingerprintInForce
from headwatch.health import ExporterHealth, Health, SpoolHealth, WorkerHealth
from headwatch.model import REQUEST_FEATURES, Document, RequestContext, Span, StatusFrame, WorkerIdentity
from headwatch.records import Delivery, RequestRecord, Stratum, WindowBatch
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter

from ..unit.incidents import canary, canary_runs, deploy, event, evidence, found, head, incident, resolved, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LAYERS, HEADS, MINUTES = 3, 4, 30
REQUESTS_A_MINUTE = 4
"""Enough for the alert rule, which wants 20 on both sides of the last ten minutes."""
LAST_CANARY_MINUTE = 9
"""In it a run of canaries was completed for the last time: 20 minutes before the end, which is four intervals."""

SECOND = 1_000_000_000
MODEL = "tiny"
SOURCES = {"wiki": 0.5, "handbook": 0.3, "": 0.2}
"""Source of each document of a request, and the share that it drew."""


def filled_store(path: Path, now_seconds: int) -> str:
    """Make an embedded store at *path* with traffic that ends at *now_seconds*, and return its URL.  It is closed again.

    The grounding of the route ``qa`` falls by several standard deviations in the last ten minutes; an incident of it opens
    five minutes later, and pages through Grafana.
    """
    url = f"chdb://{path}"
    exporter = ClickHouseExporter.open(StoreConfig(url=url))
    try:
        for delivery in deliveries(now_seconds):
            exporter.export(delivery)
    finally:
        exporter.close()
    return url


def deliveries(now_seconds: int) -> Iterator[Delivery]:
    """Yield one delivery a minute: a window, the requests of that minute, and what everybody says of himself."""
    rng = random.Random(7)
    start = now_seconds - MINUTES * 60
    worker = WorkerIdentity("engine-1", 0, start * SECOND, MODEL, "main", "float32", LAYERS, HEADS, "0.32.0")
    for minute in range(MINUTES):
        began = start + minute * 60
        requests = tuple(
            _request(worker, minute * REQUESTS_A_MINUTE + place, began + place * 60 // REQUESTS_A_MINUTE,
                     0.3 if minute >= MINUTES - 10 else 0.6, rng)
            for place in range(REQUESTS_A_MINUTE)
        )
        time_ns = (began + 59) * SECOND
        delivered = Delivery(time_ns, "vllm", (_window(worker, began),), requests, _health(worker, minute, time_ns))
        yield _findings(delivered, minute)


def _findings(delivered: Delivery, minute: int) -> Delivery:
    """Add what detection has after the window (a clock that climbs by a tenth a minute) and canaries, which cease to run."""
    now_ns = delivered.time_ns
    own = {"model": MODEL, "route": "qa"}
    happened = event(**own, since_ns=now_ns - 300 * SECOND, time_ns=now_ns)
    opened = incident(1, opened_ns=now_ns, updated_ns=now_ns, event=happened)
    changed = {
        3: (resolved(2, opened_ns=now_ns, updated_ns=now_ns + 1, resolved_ns=now_ns + 1, event=happened, ruling="true"),),
        4: (resolved(3, opened_ns=now_ns, updated_ns=now_ns + 1, resolved_ns=now_ns + 1, event=happened, ruling="false_page"),),
        5: (incident(4, opened_ns=now_ns, updated_ns=now_ns, event=happened, silenced=True, silenced_why="load test"),),
        MINUTES - 5: (opened,),
    }
    step = status(
        time_ns=now_ns, window=minute, clock=0.1 * minute, threshold=4.6,
        evidence=tuple(evidence(name, **own, heads=(), log10_evidence=size)
                       for name, size in (("lookback", 0.1 * minute), ("entropy", 0.0))),
    )  # fmt: skip
    failed = canary("tools", time_ns=now_ns, deviation=2e-6, failed=True, earliest_layer=1, heads=(head(3), head(4)))
    runs = (canary(time_ns=now_ns), failed) if minute % 5 == 0 else ()
    first = minute == 0
    baseline = BaselineInForce(now_ns, 1, "learned", now_ns, 1, 30, 30, "") if first else None
    fingerprint = FingerprintInForce(now_ns, now_ns, MODEL, "main", "float32", "set", 5, True, "") if first else None
    began_ns = now_ns - minute * 60 * SECOND
    sent = canary_runs(now_ns, completed_ns=began_ns + min(minute, LAST_CANARY_MINUTE) * 60 * SECOND)
    delivered = found(delivered)
    delivered = replace(delivered, health=replace(delivered.health, canary=sent))
    return replace(
        delivered, drift=step, incidents=changed.get(minute, ()), canaries=runs,
        deploys=(deploy(time_ns=now_ns),) if minute == 1 else (),
        baselines=(baseline,) if baseline else (), fingerprints=(fingerprint,) if fingerprint else (),
        page_route="grafana", precision={"retrieval": (1, 2)},
    )  # fmt: skip


def _request(worker: WorkerIdentity, number: int, seconds: int, level: float, rng: random.Random) -> RequestRecord:
    """Return a request; every tenth one has no documents."""
    measured = number % 10 != 9
    ratio = level + rng.gauss(0, 0.03)
    retrieved = datetime.fromtimestamp(seconds - 10 * 86_400, UTC).isoformat()
    documents = [Document(f"doc-{rank}", source=source, retrieved_at=retrieved if rank else "")
                 for rank, source in enumerate(SOURCES)] if measured else []  # fmt: skip
    context = RequestContext(
        request_id=f"chatcmpl-{number}", prompt_tokens=600, spans=[Span("user", 0, 600)], documents=documents,
        engine_id=f"chatcmpl-{number}-0a1b2c3d", route="qa", arm="" if number % 2 else "b", trace_id=f"{number:032x}",
        errors=["document_not_in_prompt"] if number % 15 == 0 else [],
    )
    means = np.full((len(REQUEST_FEATURES), LAYERS, HEADS), 0.4, np.float32)
    lookback = [[ratio + rng.gauss(0, 0.05) for _ in range(HEADS)] for _ in range(LAYERS)]
    means[REQUEST_FEATURES.index("lookback")] = lookback if measured else np.nan
    return RequestRecord(
        context=context, worker=worker, started_ns=(seconds - 1) * SECOND, ended_ns=seconds * SECOND,
        rows_prefill=1, rows_decode=4, state="measured" if measured else "absent",
        grounding_ratio=ratio if measured else None, grounding_ratio_retrieval_heads=ratio + 0.2 if measured else None,
        document_mass=ratio / 2 if measured else None, document_share=tuple(SOURCES.values()) if measured else (),
        undefined=12, head_means=means,
    )


def _window(worker: WorkerIdentity, began: int) -> WindowBatch:
    """Return a window in which each head of layer l looks back by 0.1 (l + 1)."""
    shape = (1, 1, LAYERS, HEADS)
    lookback = np.broadcast_to(0.1 * (np.arange(LAYERS) + 1)[:, None], shape)
    buckets = np.zeros((*shape, 8), np.uint32)
    buckets[..., 3] = 8
    return WindowBatch(
        start_ns=began * SECOND, end_ns=(began + 59) * SECOND, worker=worker,
        strata=(Stratum(MODEL, "main", "", "qa", "512-1k", "decode"),), features=("lookback",),
        layers=np.arange(LAYERS, dtype=np.int32), count=np.full(shape, 8, np.uint32),
        weight=np.full(shape, 8, np.uint64), total=8 * lookback,
        minimum=lookback.astype(np.float32), maximum=lookback.astype(np.float32), zero_count=np.zeros(shape, np.uint32),
        buckets=buckets, scale=0, offset=-8, rows=np.array([8], np.uint32),
    )


def _health(worker: WorkerIdentity, minute: int, time_ns: int) -> Health:
    counters = {f"rows_{fate}": rate * (minute + 1) for fate, rate in
                (("planned", 40), ("sent", 38), ("dropped", 2), ("refused", 0))}
    status = StatusFrame(
        worker=worker, sequence=minute, time_ns=time_ns, up=True, reason="", counters={**counters, "frames_dropped": minute},
        errors={"layout": minute + 1}, refused_layers={}, capture_seconds=0.5 * (minute + 1), step_seconds=50.0 * (minute + 1),
        sample_rate=1.0, step_stride=8, runner="v1", backend="cpu",
    )
    exporter = ExporterHealth(True, minute, 100 * minute, 0, 0, "", 0.02, minute % 3)
    return Health(
        time_ns=time_ns, workers=(WorkerHealth(status, time_ns, 0.0, 60 * minute, minute),),
        ingest={"frames": 60 * minute, "head_summaries": 1000 * minute},
        exporters={"clickhouse": replace(exporter, spool=_spool(time_ns)), "prometheus": exporter},
    )


def _spool(time_ns: int) -> SpoolHealth:
    return SpoolHealth(
        up=True, last_error="", disk_bytes=1 << 20, max_bytes=1 << 24, records=2, oldest_ns=time_ns - 3 * SECOND,
        sent_records=9, sent_batches=50, sent_rows=1000, send_errors=0, errors={}, dropped_batches={}, dropped_rows={},
        aside_batches=0, last_duration_seconds=0.02,
    )  # fmt: skip
