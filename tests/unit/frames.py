"""Summary frames with known contents."""

from __future__ import annotations

import numpy as np

from headwatch.model import FEATURES, Document, RequestContext, Span, StatusFrame, SummaryBatch, WorkerIdentity

LAYERS, HEADS, PROMPT = 2, 3, 10
SECOND = 1_000_000_000


def worker(instance: str = "engine-1", start_ns: int = 1) -> WorkerIdentity:
    return WorkerIdentity(instance, 0, start_ns, "model", "rev", "float32", LAYERS, HEADS, "0.32.0")


def context(engine_id: str = "r-1", documents: int = 2, route: str = "support") -> RequestContext:
    """System 0-2, document 0 at 2-5, document 1 at 5-8, user 8-10."""
    spans = [Span("system", 0, 2), Span("user", 8, PROMPT)]
    if documents:
        spans[1:1] = [Span("document", 2, 5, 0), Span("document", 5, 8, 1)]
    else:
        spans[1:1] = [Span("history", 2, 8, -1, 1)]
    return RequestContext(
        "r", PROMPT, spans, [Document(f"d{i}", source="wiki") for i in range(documents)], engine_id, route, "arm-a"
    )


def summary(
    rows: list[tuple[int, dict[str, float], list[float]]],
    *,
    sequence: int = 0,
    time_ns: int = 100 * SECOND,
    request: RequestContext | None = None,
    finished: list[str] | None = None,
    identity: WorkerIdentity | None = None,
) -> SummaryBatch:
    """Return a frame; each row is (position, features by name, span masses), the same for every layer and head."""
    request = request or context()
    features = np.full((len(rows), LAYERS, HEADS, len(FEATURES)), np.nan, "<f4")
    masses = []
    for number, (_, values, mass) in enumerate(rows):
        for name, value in values.items():
            features[number, :, :, FEATURES.index(name)] = value
        masses.append(np.broadcast_to(np.array(mass, "<f4")[:, None, None], (len(mass), LAYERS, HEADS)))
    return SummaryBatch(
        worker=identity or worker(),
        sequence=sequence,
        time_ns=time_ns,
        layers=list(range(LAYERS)),
        heads=HEADS,
        head_offset=0,
        requests=[request],
        row_request=np.zeros(len(rows), "<i4").tobytes(),
        row_position=np.array([row[0] for row in rows], "<i4").tobytes(),
        features=features.tobytes(),
        span_mass=b"".join(np.ascontiguousarray(mass, "<f4").tobytes() for mass in masses),
        finished=finished or [],
    )


def status(sequence: int = 0, time_ns: int = 0, identity: WorkerIdentity | None = None) -> StatusFrame:
    return StatusFrame(
        identity or worker(), sequence, time_ns, True, "", {"rows_planned": 5}, {}, {}, 0.1, 10.0, 0.1, 8, "runner", "backend"
    )
