"""Hypothesis strategies for frames: anything that a worker could send, and more."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from headwatch.model import (
    DOCUMENT_KINDS,
    FEATURES,
    SPAN_KINDS,
    Document,
    RequestContext,
    Span,
    StatusFrame,
    SummaryBatch,
    TextFrame,
    WorkerIdentity,
)

texts = st.text(max_size=20)
counts = st.integers(0, 2**63 - 1)
count_tables = st.dictionaries(texts, counts, max_size=4)
finite = st.floats(0, 1e9)
workers = st.builds(WorkerIdentity, texts, counts, counts, texts, texts, texts, counts, counts, texts)
spans = st.builds(Span, st.sampled_from(SPAN_KINDS), counts, counts, st.integers(-1, 100), st.integers(0, 100))
documents = st.builds(
    Document, texts, st.sampled_from(DOCUMENT_KINDS), texts, texts, texts,
    st.dictionaries(texts, texts, max_size=3), st.booleans(),
)  # fmt: skip
contexts = st.builds(
    RequestContext, texts, st.integers(0, 2**31 - 1), st.lists(spans, max_size=4), st.lists(documents, max_size=3),
    *[texts] * 6, st.lists(texts, max_size=2), finite, st.booleans(), st.integers(0, 4), st.lists(spans, max_size=2),
    *[texts] * 3,
)  # fmt: skip
statuses = st.builds(
    StatusFrame, workers, counts, counts, st.booleans(), texts, count_tables, count_tables,
    st.dictionaries(texts, texts, max_size=4), finite, finite, st.floats(0, 1), counts, texts, texts,
    texts, counts, st.integers(0, 4), counts, st.dictionaries(texts, texts, max_size=2),
)  # fmt: skip

text_frames = st.builds(TextFrame, texts, counts, counts, texts, contexts, st.just("prompt"), st.text(max_size=200), counts)


@st.composite
def batches(draw: st.DrawFn, details: st.SearchStrategy[int] = st.integers(0, 4)) -> SummaryBatch:  # noqa: B008 - strategies are values
    """Frames that fit themselves, of any detail level: any rows, requests, layers and heads, NaN where it is allowed."""
    requests = draw(st.lists(contexts, min_size=1, max_size=3))
    layers = draw(st.lists(st.integers(0, 200), max_size=3, unique=True).map(sorted))
    heads = draw(st.integers(1, 3))
    row_request = draw(st.lists(st.integers(0, len(requests) - 1), max_size=4 if layers else 0))
    position = draw(st.lists(st.integers(0, 40), min_size=len(row_request), max_size=len(row_request)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cells, rows = len(layers) * heads, len(row_request)
    detail = draw(details)
    cross = detail < 2 and draw(st.booleans())
    over = [item.encoder_spans if cross else item.spans for item in requests]
    masses = sum(len(over[index]) + 1 for index in row_request) * cells

    def column(length: int, dtype: str = "<f4") -> bytes:
        values = rng.random(length, np.float32)
        values[rng.random(length) < 0.2] = np.nan
        return values.astype(dtype).tobytes()

    values = draw(st.booleans())
    weighted = draw(st.booleans())
    block, top = draw(st.integers(1, 20)), draw(st.integers(1, 4))
    extra: dict[str, Any] = {}
    if detail >= 2:
        blocks = sum(-(-(p + 1) // block) for p in position) * cells
        extra |= {"block_tokens": block, "block_profile": rng.integers(0, 256, blocks, np.uint8).tobytes()}
    if detail >= 3:
        places = [rng.integers(-1, p + 1, cells * top) for p in position]
        extra |= {
            "top_k": top, "top_position": np.concatenate([*places, np.zeros(0)]).astype("<i4").tobytes(),
            "top_weight": column(rows * cells * top),
        }  # fmt: skip
    if detail >= 4:
        extra["full_weight"] = column(sum(p + 1 for p in position) * cells, "<f2")
    return SummaryBatch(
        worker=draw(workers),
        sequence=draw(counts),
        time_ns=draw(st.integers(0, 2**62 - 1)),
        layers=layers,
        heads=heads,
        head_offset=draw(st.integers(0, 64)),
        requests=requests,
        row_request=np.array(row_request, "<i4").tobytes(),
        row_position=np.array(position, "<i4").tobytes(),
        features=column(rows * cells * len(FEATURES)),
        span_mass=column(masses) if detail >= 1 else b"",
        finished=draw(st.lists(texts, max_size=3)),
        attention="cross" if cross else "self",
        centroid=column(rows * cells) if cross else b"",
        detail=detail,
        row_weight=rng.uniform(0, 100, rows).astype("<f4").tobytes() if weighted else b"",
        value_mass=column(masses) if values else b"",
        output_norm=column(rows * cells) if values else b"",
        **extra,
    )
