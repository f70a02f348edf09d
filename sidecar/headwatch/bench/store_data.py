"""Windows, rows and requests to fill a store with, made of real attention.

``data/attention_rows.npz`` holds what the 30 layers of 9 heads of SmolLM2-135M-Instruct did in 80 generated rows: ten prompts
of about 615 tokens with four documents each, every fifth of 40 tokens, float32.  A window draws five of the ten requests and
jitters each value by 2 %, so that no two windows are alike and each head keeps its own place and spread.  A model of another
size takes its heads evenly from first to last layer.

Rows weigh what the default settings give them: requests are sampled one in ten, rows one in eight, and the first generated
row always.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from headwatch.aggregate.histogram import BUCKETS, OFFSET, SCALE, HistogramBlock
from headwatch.model import FEATURES, Document, RequestContext, Span, WorkerIdentity
from headwatch.records import RequestRecord, RowEvidence, Stratum, WindowBatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

KINDS = ("template", "system", "user", "document", "generated")
"""Span kinds of the recorded prompts; their four documents are spans of their own."""
FEATURES_STORED = (*FEATURES, "document_mass", *(f"span_mass.{kind}" for kind in KINDS))
REQUESTS_A_WINDOW = 5
ROWS_A_REQUEST = 8
WEIGHTS = (10, *(80,) * (ROWS_A_REQUEST - 1))
DAY_SECONDS = 86_400
_DOCUMENTS = slice(3, 7)
_SATURATED = 0.999
_JITTER = 0.02


@dataclass(frozen=True, slots=True)
class Rows:
    """The recorded rows: R requests, N rows each, L layers, H heads."""

    features: NDArray[np.float32]  # [R, N, L, H, len(FEATURES)]
    span_mass: NDArray[np.float32]  # [R, N, L, H, 8]: template, system, user, four documents, generated
    position: NDArray[np.int32]  # [R, N]


def recorded() -> Rows:
    """Return the rows that ship with headwatch."""
    with files(__package__).joinpath("data/attention_rows.npz").open("rb") as file, np.load(file, allow_pickle=False) as data:
        features, mass, position = data["features"], data["span_mass"], data["position"]
    shape = (-1, ROWS_A_REQUEST)
    return Rows(features.reshape(*shape, *features.shape[1:]), mass.reshape(*shape, *mass.shape[1:]), position.reshape(shape))


def windows(
    layers: int, heads: int, strata: int, minutes: int, start_seconds: int, instance: str = "engine-1"
) -> Iterator[WindowBatch]:
    """Yield *minutes* windows of one engine from *start_seconds* on, every stratum and head in each."""
    values = _of_windows(recorded())  # [R, N, F, heads]
    chosen = _spread(values.shape[-1], layers * heads)
    random = np.random.default_rng(0)
    cells = len(FEATURES_STORED) * layers * heads
    weights = np.tile(WEIGHTS, REQUESTS_A_WINDOW).astype(np.int64)
    shape = (1, len(FEATURES_STORED), layers, heads)
    for minute in range(minutes):
        blocks = []
        for _ in range(strata):
            drawn = values[random.choice(len(values), REQUESTS_A_WINDOW, replace=False)][..., chosen]
            drawn = drawn.reshape(len(weights), cells)
            drawn = np.minimum(drawn * np.exp(random.normal(0, _JITTER, drawn.shape)), 1).astype(np.float32)
            block = HistogramBlock(cells)
            block.observe(drawn, weights)
            blocks.append(block)
        start_ns = (start_seconds + 60 * minute) * 10**9
        yield WindowBatch(
            start_ns=start_ns,
            end_ns=start_ns + 60 * 10**9,
            worker=worker(layers, heads, instance),
            strata=tuple(stratum(number) for number in range(strata)),
            features=FEATURES_STORED,
            layers=np.arange(layers, dtype=np.int32),
            count=np.concatenate([block.count.reshape(shape) for block in blocks]),
            weight=np.concatenate([block.weight.reshape(shape) for block in blocks]),
            total=np.concatenate([block.total.reshape(shape) for block in blocks]),
            minimum=np.concatenate([block.minimum.reshape(shape) for block in blocks]),
            maximum=np.concatenate([block.maximum.reshape(shape) for block in blocks]),
            zero_count=np.concatenate([block.zero_count.reshape(shape) for block in blocks]),
            buckets=np.concatenate([block.buckets.reshape(*shape, BUCKETS) for block in blocks]),
            scale=SCALE,
            offset=OFFSET,
            rows=np.full(strata, len(weights), np.uint32),
        )


def stratum(number: int) -> Stratum:
    """Return one of the strata of a service with five routes, two phases each."""
    return Stratum("model", "rev", "", f"route-{number // 2}", "512-1k", "decode" if number % 2 == 0 else "prefill")


def worker(layers: int, heads: int, instance: str) -> WorkerIdentity:
    """Return the identity of the engine."""
    return WorkerIdentity(instance, 0, 0, "model", "rev", "bfloat16", layers, heads, "0.32.0")


def rows(start_seconds: int) -> list[RowEvidence]:
    """Return the recorded rows as single rows of detail 2, without blocks: features and span masses alone."""
    data = recorded()
    layers, heads = data.features.shape[2:4]
    return [
        RowEvidence(
            context=context(request), worker=worker(layers, heads, "engine-1"),
            time_ns=(start_seconds + 60 * request) * 10**9 + row,
            position=int(data.position[request, row]), detail=2, layers=tuple(range(layers)), heads=heads, head_offset=0,
            features=np.ascontiguousarray(data.features[request, row], "<f4").tobytes(),
            span_mass=np.ascontiguousarray(np.moveaxis(data.span_mass[request, row], -1, 0), "<f4").tobytes(),
            value_mass=b"", output_norm=b"", block_tokens=16, block_profile=b"", top_k=0, top_position=b"", top_weight=b"",
            full_weight=b"",
        )
        for request in range(data.features.shape[0])
        for row in range(ROWS_A_REQUEST)
    ]  # fmt: skip


def requests(layers: int, heads: int, number: int, start_seconds: int, every_seconds: float = 1.0) -> Iterator[RequestRecord]:
    """Yield *number* requests that ended *every_seconds*, with the means of every head."""
    values = _of_windows(recorded())[:, :, :7]  # [R, N, len(REQUEST_FEATURES), heads]
    chosen = _spread(values.shape[-1], layers * heads)
    means = _mean(values)[..., chosen]
    random = np.random.default_rng(1)
    for request in range(number):
        mean = means[request % len(means)]
        mean = np.minimum(mean * np.exp(random.normal(0, _JITTER, mean.shape)), 1).astype(np.float32)
        ended_ns = int((start_seconds + every_seconds * request) * 1e9)
        yield RequestRecord(
            context=context(request), worker=worker(layers, heads, "engine-1"), started_ns=ended_ns - 4 * 10**9,
            ended_ns=ended_ns, rows_prefill=1, rows_decode=ROWS_A_REQUEST, state="measured",
            grounding_ratio=float(np.mean(mean[5])),
            grounding_ratio_retrieval_heads=float(np.mean(mean[5, : max(layers * heads // 20, 1)])),
            document_mass=float(np.mean(mean[6])), document_share=(0.4, 0.3, 0.2, 0.1), undefined=0,
            head_means=mean.reshape(-1, layers, heads),
        )  # fmt: skip


def _mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean over the rows of each request, NaN where none is defined."""
    count = (~np.isnan(values)).sum(1)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float32] = np.nansum(values, axis=1) / count
    return mean


def _spread(there: int, wanted: int) -> NDArray[np.int64]:
    """Return *wanted* heads out of *there*, evenly from the first to the last."""
    chosen: NDArray[np.int64] = np.arange(wanted) * there // wanted
    return chosen


def context(number: int) -> RequestContext:
    """Return the context of a request as the recorded ones were: about 615 tokens, four documents."""
    name = f"chatcmpl-{np.random.default_rng(number).bytes(16).hex()}"
    kinds = ("template", "system", "user", "document", "document", "document", "document")
    ends = (5, 35, 95, 225, 355, 485, 615)
    spans = [
        Span(kind, start, end, place - 3 if kind == "document" else -1)  # type: ignore[arg-type] # of a literal's words
        for place, (kind, start, end) in enumerate(zip(kinds, (0, *ends[:-1]), ends, strict=True))
    ]
    documents = [Document(f"doc-{(7 * number + rank) % 500}", source=f"source-{rank}", version="3") for rank in range(4)]
    return RequestContext(
        request_id=name, engine_id=f"{name}-{number % 65536:08x}", prompt_tokens=615, spans=spans, documents=documents,
        route=f"route-{number % 5}", arm="a", weight=10.0, language="en",
    )  # fmt: skip


def _of_windows(data: Rows) -> NDArray[np.float32]:
    """Return the values that windows count, [R, N, len(FEATURES_STORED), heads]; NaN where undefined."""
    mass = data.span_mass
    documents = mass[..., _DOCUMENTS].sum(-1)
    sink = data.features[..., FEATURES.index("sink_mass")]
    document_mass = np.where(sink > _SATURATED, np.nan, documents / np.maximum(1 - sink, 1e-3))
    features = data.features.copy()
    features[:, 0, ..., FEATURES.index("lookback")] = np.nan  # nothing is generated yet where the first row looks
    kinds = [mass[..., 0], mass[..., 1], mass[..., 2], documents, mass[..., 7]]
    values = np.concatenate([features, document_mass[..., None], np.stack(kinds, -1)], -1)
    return np.moveaxis(values, -1, 2).reshape(*values.shape[:2], len(FEATURES_STORED), -1).astype(np.float32)
