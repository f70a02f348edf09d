"""Deliveries with known contents, made from frames by the real aggregator.

One engine of two layers and three heads served three requests of arm ``arm-a`` on route ``support``.  Each read two
documents; one row of its prompt and one generated row were sampled.  What must come out is written here by hand.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headwatch.aggregate.histogram import BUCKETS, OFFSET, SCALE, HistogramBlock
from headwatch.aggregate.windows import Aggregator
from headwatch.config import WindowConfig
from headwatch.health import ExporterHealth, Health, WorkerHealth
from headwatch.model import FEATURES, WINDOW_FEATURES
from headwatch.records import Delivery, Stratum, WindowBatch
from headwatch.wire.columns import view

from ..unit import frames

if TYPE_CHECKING:
    from headwatch.model import SummaryBatch

SERVICE = "vllm"
FIXED_NS = 1_800_000_030 * frames.SECOND
"""A moment half a window after the full minute, for tests in which the clock must stand still."""
HEAD_STEP = 0.01
"""Each head looks back so much more than the one before it."""
RETRIEVAL_HEADS = np.eye(frames.LAYERS, frames.HEADS, dtype=bool)
"""Head 0 of layer 0 and head 1 of layer 1."""

RATIOS = (0.21, 0.31, 0.41)
"""By request: lookback of heads 0, 1, 2 is 0.2, 0.21, 0.22 in the first, and 0.1 more in each later one."""
RETRIEVAL_RATIOS = (0.205, 0.305, 0.405)
DOCUMENT_MASS = 0.5
"""(0.3 + 0.1) / (1 - 0.2)."""
DOCUMENT_SHARES = (0.75, 0.25)


def full(now_ns: int = FIXED_NS) -> Delivery:
    """Return a delivery of one window, three requests and the health of a working pair."""
    batches = [
        _with_head_steps(frames.summary(
            [
                (9, {"entropy": 0.9, "max_weight": 0.5, "sink_mass": 0.2, "local_mass": 1.0, "distance": 0.6},
                 [0.2, 0.3, 0.1, 0.4, 0.0]),
                (10, {"entropy": 0.5, "max_weight": 0.3, "sink_mass": 0.2, "local_mass": 0.6, "distance": 0.4,
                      "lookback": 0.2 + 0.1 * number},
                 [0.2, 0.3, 0.1, 0.1, 0.3]),
            ],
            request=frames.context(f"r-{number}"), sequence=number, time_ns=now_ns + number, finished=[f"r-{number}"],
        ))
        for number in range(3)
    ]  # fmt: skip
    status = frames.status(3, now_ns, frames.worker(start_ns=now_ns - 60 * frames.SECOND))
    ingest = {"frames": 3, "rows": 6, "head_summaries": 36, "late_rows": 0, "rejected.magic": 1}
    peer = ExporterHealth(True, 1, 51, 0, 0, "", 0.25, 0)
    health = Health(now_ns, (WorkerHealth(status, now_ns, 0.5, 3, 0),), ingest, {"otlp": peer})
    return _delivery(batches, now_ns, health)


def carried(now_ns: int = FIXED_NS) -> Delivery:
    """Return a delivery of one request whose heads' value masses were measured: document 1 carries three quarters."""
    batch = frames.detailed(1, time_ns=now_ns, finished=["r-1"])
    return _delivery([batch], now_ns, Health(now_ns, (), {}, {}))


def undefined(now_ns: int = FIXED_NS) -> Delivery:
    """Return a delivery in which nothing that may be undefined is defined.

    One request names no documents, one has a saturated sink, of one only a row of the prompt was sampled.
    """
    rows = {
        "r-absent": (10, {"entropy": 0.5, "sink_mass": 0.2}, [0.2, 0.4, 0.1, 0.3]),
        "r-saturated": (10, {"sink_mass": 1.0}, [1.0, 0.0, 0.0, 0.0, 0.0]),
        "r-prefill": (9, {}, [0.2, 0.3, 0.1, 0.4, 0.0]),
    }
    batches = [
        frames.summary(
            [row], request=frames.context(name, documents=0 if name == "r-absent" else 2), sequence=number,
            time_ns=now_ns + number, finished=[name],
        )
        for number, (name, row) in enumerate(rows.items())
    ]  # fmt: skip
    return _delivery(batches, now_ns, Health(now_ns, (), {}, {}))


def empty(now_ns: int = FIXED_NS) -> Delivery:
    """Return a delivery before anything was heard of any worker."""
    return Delivery(now_ns, SERVICE, (), (), Health(now_ns, (), {}, {}))


def wide(now_ns: int = FIXED_NS) -> Delivery:
    """Return a delivery of one window with 20,000 cells: 10 features of 40 layers with 50 heads."""
    shape = (1, 10, 40, 50)
    cells = int(np.prod(shape))
    block = HistogramBlock(cells)
    block.observe(np.random.default_rng(0).random((32, cells), np.float32), np.ones(32, np.int64))
    window = WindowBatch(
        start_ns=now_ns - 60 * frames.SECOND,
        end_ns=now_ns,
        worker=frames.worker(),
        strata=(Stratum("model", "rev", "", "support", "<256", "decode"),),
        features=WINDOW_FEATURES[: shape[1]],
        layers=np.arange(shape[2], dtype=np.int32),
        count=block.count.reshape(shape),
        weight=block.weight.reshape(shape),
        total=block.total.reshape(shape),
        minimum=block.minimum.reshape(shape),
        maximum=block.maximum.reshape(shape),
        zero_count=block.zero_count.reshape(shape),
        buckets=block.buckets.reshape(*shape, BUCKETS),
        scale=SCALE,
        offset=OFFSET,
        rows=np.array([32], np.uint32),
    )
    return Delivery(now_ns, SERVICE, (window,), (), Health(now_ns, (), {}, {}))


def contents(delivery: Delivery) -> bytes:
    """Return all of *delivery* as bytes, to see whether anybody changed it."""
    return pickle.dumps(delivery)


def _delivery(batches: list[SummaryBatch], now_ns: int, health: Health) -> Delivery:
    aggregator = Aggregator(WindowConfig(), {"model": RETRIEVAL_HEADS})
    for batch in batches:
        aggregator.add(batch, view(batch))
    windows, requests = aggregator.collect(now_ns, everything=True)
    return Delivery(now_ns, SERVICE, tuple(windows), tuple(requests), health)


def _with_head_steps(batch: SummaryBatch) -> SummaryBatch:
    features = np.frombuffer(batch.features, "<f4").reshape(-1, frames.LAYERS, frames.HEADS, len(FEATURES)).copy()
    features[..., FEATURES.index("lookback")] += HEAD_STEP * np.arange(frames.HEADS, dtype=np.float32)
    return msgspec.structs.replace(batch, features=features.tobytes())
