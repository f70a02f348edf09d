"""Minutes of traffic as the pipeline delivers them: head summaries of several routes and engines through the aggregator."""

from __future__ import annotations

import time

import numpy as np

from headwatch.aggregate.windows import Aggregator
from headwatch.config import WindowConfig
from headwatch.health import ExporterHealth, Health, WorkerHealth
from headwatch.model import FEATURES, Document, RequestContext, Span, StatusFrame, SummaryBatch, WorkerIdentity
from headwatch.records import Delivery
from headwatch.wire.columns import view

SECOND = 1_000_000_000
START_NS = 1_700_000_040 * SECOND
"""The start of a minute, for tests in which the clock must stand still.  A store forgets what is that old: see RECENT_NS."""
RECENT_NS = time.time_ns() // (60 * SECOND) * 60 * SECOND - 3600 * SECOND
MODEL = "smol"
LAYERS, HEADS = 6, 4
PROMPT = 100
ROWS = 5
EMPTY = Delivery(START_NS, "vllm", (), (), Health(START_NS, (), {}, {}))


def worker(instance: str = "engine-1", layers: int = LAYERS, heads: int = HEADS) -> WorkerIdentity:
    return WorkerIdentity(instance, 0, START_NS - SECOND, MODEL, "rev", "float32", layers, heads, "0.32.0")


def context(number: int, *, route: str = "support", arm: str = "healthy", documents: int = 2) -> RequestContext:
    """System 0-10, documents 10-90 in equal parts, user 90-100.  Without documents all of that is the user's."""
    spans = [Span("system", 0, 10), Span("user", 90, PROMPT)]
    if documents:
        size = 80 // documents
        spans[1:1] = [Span("document", 10 + size * k, 10 + size * (k + 1), k) for k in range(documents)]
    else:
        spans[1] = Span("user", 10, PROMPT)
    return RequestContext(
        request_id=f"chatcmpl-{number}",
        prompt_tokens=PROMPT,
        spans=spans,
        documents=[
            Document(f"doc-{k}", source=f"wiki-{k}", version="3", labels={"tenant": "a"}, found=k != 1)
            for k in range(documents)
        ],
        engine_id=f"chatcmpl-{number}-0a1b2c3d",
        route=route,
        arm=arm,
        trace_id=f"{number:032x}",
        errors=["document_not_in_prompt"] if documents > 1 else [],
    )


def frame(item: RequestContext, time_ns: int, lookback: float, identity: WorkerIdentity, seed: int = 0) -> SummaryBatch:
    """One prefill row and ROWS decode rows of one request.

    Head 0 of layer 0 never defines its lookback, and no head does where the request has no documents.
    """
    rng = np.random.default_rng(seed)
    positions = [PROMPT - 1, *range(PROMPT, PROMPT + ROWS)]
    features = rng.uniform(0.05, 0.15, (len(positions), identity.layers, identity.heads, len(FEATURES))).astype("<f4")
    noise = rng.uniform(-0.02, 0.02, features.shape[:-1])
    features[..., FEATURES.index("lookback")] = lookback + noise
    features[0, ..., FEATURES.index("lookback")] = np.nan  # nothing is generated yet
    features[:, 0, 0, FEATURES.index("lookback")] = np.nan
    if not item.documents:
        features[..., FEATURES.index("lookback")] = np.nan
    masses = np.full((len(positions), len(item.spans) + 1, identity.layers, identity.heads), 0.01, "<f4")
    masses[:, [place for place, span in enumerate(item.spans) if span.kind == "document"]] = 0.2
    return SummaryBatch(
        worker=identity, sequence=0, time_ns=time_ns, layers=list(range(identity.layers)), heads=identity.heads,
        head_offset=0, requests=[item], row_request=np.zeros(len(positions), "<i4").tobytes(),
        row_position=np.array(positions, "<i4").tobytes(), features=features.tobytes(), span_mass=masses.tobytes(),
        finished=[item.engine_id],
    )  # fmt: skip


def delivery(
    number: int = 0, *, lookback: float = 0.4, identity: WorkerIdentity | None = None, route: str = "support",
    arm: str = "healthy", start_ns: int = START_NS,
) -> Delivery:  # fmt: skip
    """Minute *number*: one window with two requests that name documents and one that names none."""
    identity = identity or worker()
    begin_ns = start_ns + number * 60 * SECOND
    aggregator = Aggregator(WindowConfig(seconds=60), {MODEL: np.eye(identity.layers, identity.heads, dtype=bool)})
    for place, documents in enumerate((2, 4, 0)):
        item = context(number * 3 + place, documents=documents, route=route, arm=arm)
        batch = frame(item, begin_ns + place * SECOND, lookback, identity, seed=number * 3 + place)
        aggregator.add(batch, view(batch))
    windows, requests = aggregator.collect(begin_ns + 70 * SECOND)
    time_ns = begin_ns + 63 * SECOND
    return Delivery(time_ns, "vllm", tuple(windows), tuple(requests), health(time_ns, identity, number))


def health(time_ns: int, identity: WorkerIdentity, number: int = 0) -> Health:
    """The worker captures; one layer is refused, one row in 18 is lost, two frames were none."""
    done = number + 1
    status = StatusFrame(
        worker=identity, sequence=done, time_ns=time_ns, up=True, reason="", errors={"layout": 1},
        counters={"rows_planned": 18 * done, "rows_sent": 17 * done, "rows_dropped": done, "frames_dropped": done},
        refused_layers={"model.layers.3.attn": "layout"}, capture_seconds=0.25 * done, step_seconds=50.0 * done,
        sample_rate=1.0, step_stride=8, runner="v1", backend="cpu",
    )  # fmt: skip
    exporter = ExporterHealth(
        up=True, exported_batches=number, exported_points=100 * number, dropped_batches=0, errors=0, last_error="",
        last_duration_seconds=0.02, queue_batches=0,
    )  # fmt: skip
    return Health(
        time_ns=time_ns,
        workers=(WorkerHealth(status, time_ns, 0.001, 3 * done, 0),),
        ingest={"frames": 3 * done, "rows": 18 * done, "head_summaries": 18 * LAYERS * HEADS * done, "rejected.magic": 2},
        exporters={"clickhouse": exporter, "prometheus": exporter},
    )
