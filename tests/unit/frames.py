"""Summary frames with known contents."""

from __future__ import annotations

import msgspec
import numpy as np

from headwatch.model import FEATURES, Document, RequestContext, Span, StatusFrame, SummaryBatch, WorkerIdentity
from headwatch.wire.mass_code import to_code

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


def detailed(
    detail: int,
    *,
    positions: tuple[int, ...] = (10, 11),
    request: RequestContext | None = None,
    sequence: int = 0,
    time_ns: int = 100 * SECOND,
    finished: list[str] | None = None,
    values: bool = True,
) -> SummaryBatch:
    """Return a frame of *detail* in which every head spreads its attention evenly; blocks of 4 tokens, two top positions.

    Where it carries *values*, document 0 carries nothing, document 1 three quarters and the generated text the rest of 2.
    """
    rows = [(position, {"entropy": 1.0, "sink_mass": 0.1, "lookback": 0.5}, [0.2] * 5) for position in positions]
    batch = summary(rows, sequence=sequence, time_ns=time_ns, request=request, finished=finished)
    cells, columns = LAYERS * HEADS, {}
    if values:
        carried = np.repeat(np.array([0.0, 0.0, 1.5, 0.0, 0.5], "<f4"), cells)
        columns |= {
            "value_mass": np.tile(carried, len(rows)).tobytes(),
            "output_norm": np.full(len(rows) * cells, 3.0, "<f4").tobytes(),
        }  # fmt: skip
    if detail >= 2:
        profiles = [np.repeat(_profile(position), cells) for position in positions]
        columns |= {"block_tokens": 4, "block_profile": np.concatenate(profiles).tobytes()}
    if detail >= 3:
        weights = [np.full(cells * 2, 1 / (position + 1), "<f4") for position in positions]
        columns |= {
            "top_k": 2, "top_position": np.tile(np.array([0, 1], "<i4"), cells * len(rows)).tobytes(),
            "top_weight": np.concatenate(weights).tobytes(),
        }  # fmt: skip
    if detail >= 4:
        full = [np.full((position + 1) * cells, 1 / (position + 1), "<f2") for position in positions]
        columns["full_weight"] = np.concatenate(full).tobytes()
    return msgspec.structs.replace(batch, detail=detail, **columns)


def _profile(position: int) -> np.ndarray:
    """Codes of the masses of blocks of 4 tokens of an even row."""
    tokens = np.full(-(-(position + 1) // 4), 4)
    tokens[-1] = position + 1 - 4 * (len(tokens) - 1)
    return to_code(tokens / (position + 1))


def status(sequence: int = 0, time_ns: int = 0, identity: WorkerIdentity | None = None) -> StatusFrame:
    return StatusFrame(
        identity or worker(), sequence, time_ns, True, "", {"rows_planned": 5}, {}, {}, 0.1, 10.0, 0.1, 8, "runner", "backend"
    )
