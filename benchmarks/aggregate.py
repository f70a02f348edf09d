"""How many head summaries a second one core takes, from a frame's bytes to closed windows.

Run ``python -m benchmarks.aggregate [--json]``.  The frames are as the packaged model sends them: 30 layers, 9 heads, four
rows, six spans.  Reported as a rate and as a ratio to copying the same bytes once, which no implementation can beat.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np

from headwatch.aggregate.windows import Aggregator
from headwatch.config import WindowConfig
from headwatch.model import FEATURES, Document, RequestContext, Span, SummaryBatch, WorkerIdentity
from headwatch.wire import codec, columns

LAYERS, HEADS, ROWS, SPANS = 30, 9, 4, 6


def frames(count: int) -> list[bytes]:
    """Return *count* encoded frames of four requests that generate."""
    random = np.random.default_rng(0)
    worker = WorkerIdentity("bench", 0, 1, "model", "", "float32", LAYERS, HEADS, "0.32.0")
    documents = [Span("document", 10 + 100 * i, 110 + 100 * i, i) for i in range(4)]
    spans = [Span("system", 0, 10), *documents, Span("user", 410, 430)]
    contexts = [
        RequestContext(f"r{i}", 430, spans, [Document(f"d{j}") for j in range(4)], f"r{i}", "route") for i in range(ROWS)
    ]
    made = []
    for sequence in range(count):
        features = random.random((ROWS, LAYERS, HEADS, len(FEATURES)), np.float32)
        mass = random.dirichlet(np.ones(SPANS + 1), (ROWS, LAYERS, HEADS)).astype("<f4")
        made.append(codec.encode(SummaryBatch(
            worker, sequence, 60_000_000_000, list(range(LAYERS)), HEADS, 0, contexts,
            np.arange(ROWS, dtype="<i4").tobytes(), np.full(ROWS, 430 + sequence, "<i4").tobytes(),
            features.tobytes(), np.ascontiguousarray(np.moveaxis(mass, -1, 1)).tobytes(),
        )))
    return made


def measure(count: int) -> dict[str, float]:
    """Return the rate, and the time relative to copying the frames' bytes."""
    payloads = frames(count)
    aggregator = Aggregator(WindowConfig())
    started = time.perf_counter()
    for payload in payloads:
        batch = codec.decode(payload)
        if isinstance(batch, SummaryBatch):
            aggregator.add(batch, columns.view(batch))
    aggregator.collect(0, everything=True)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    for payload in payloads:
        bytearray(payload)
    copying = time.perf_counter() - started
    summaries = count * ROWS * LAYERS * HEADS
    return {
        "head_summaries": summaries,
        "head_summaries_per_second": summaries / seconds,
        "ratio_to_copying": seconds / copying,
    }


def main() -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.frames)
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        sys.stdout.write("".join(f"{name:28} {value:14,.0f}\n" for name, value in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
