"""A hundred thousand random and mutated frames: each is taken or counted by reason, none ends the sidecar."""

from __future__ import annotations

import random
import resource

import msgspec
import numpy as np
import pytest

from headwatch.aggregate.evidence import EvidenceQueue
from headwatch.aggregate.windows import Aggregator
from headwatch.config import EvidenceConfig, WindowConfig, WireConfig
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry
from headwatch.model import FEATURES, Document, RequestContext, Span, StatusFrame, SummaryBatch, WorkerIdentity
from headwatch.wire import codec

from ..unit.frames import detailed

pytestmark = pytest.mark.long

FRAMES = 100_000
LAYERS, HEADS = 2, 3


def frames() -> list[bytes]:
    worker = WorkerIdentity("engine", 0, 1, "model", "", "float32", LAYERS, HEADS, "0.32.0")
    context = RequestContext("r", 8, [Span("document", 0, 4, 0), Span("user", 4, 8)], [Document("d")], "r-1")
    values = np.full((2, LAYERS, HEADS, len(FEATURES)), 0.5, "<f4")
    mass = np.full((2, 3, LAYERS, HEADS), 1 / 3, "<f4")
    summary = SummaryBatch(
        worker, 0, 10**18, list(range(LAYERS)), HEADS, 0, [context], np.zeros(2, "<i4").tobytes(),
        np.array([8, 9], "<i4").tobytes(), values.tobytes(), mass.tobytes(), ["r-0"],
    )  # fmt: skip
    status = StatusFrame(worker, 0, 10**18, True, "", {"steps": 1}, {}, {}, 0.1, 1.0, 0.1, 8, "runner", "backend")
    return [codec.encode(summary), codec.encode(status), codec.encode(detailed(4)), codec.encode(detailed(2, values=False))]


def mutate(payload: bytes, source: random.Random) -> bytes:
    """Return *payload* with bytes flipped, cut out, doubled or replaced by noise, or a field of another type."""
    data = bytearray(payload)
    match source.randrange(5):
        case 0:
            for _ in range(source.randrange(1, 8)):
                data[source.randrange(len(data))] = source.randrange(256)
        case 1:
            start = source.randrange(len(data))
            del data[start : start + source.randrange(1, 64)]
        case 2:
            start = source.randrange(len(data))
            data[start:start] = data[start : start + source.randrange(1, 64)]
        case 3:
            return source.randbytes(source.randrange(0, 400))
        case _:
            fields = msgspec.msgpack.decode(payload[2:])
            name = source.choice(list(fields))
            fields[name] = source.choice([None, -1, 2**63, "", b"", [], {}, [[]], float("nan"), "x" * 1000])
            return payload[:2] + msgspec.msgpack.encode(fields)
    return bytes(data)


def test_mutated_frames_are_counted_and_memory_does_not_grow() -> None:
    source, originals = random.Random(7), frames()
    evidence = EvidenceQueue(EvidenceConfig(max_bytes=1 << 20))
    aggregator = Aggregator(WindowConfig(max_strata=8, max_open_requests=64), {}, evidence)
    receiver = Receiver(WireConfig(), WorkerRegistry(), aggregator.add)
    half = 0
    for number in range(FRAMES):
        receiver.accept(mutate(source.choice(originals), source))
        if number % 500 == 0:
            aggregator.collect(0, everything=True)
            evidence.take()
        if number == FRAMES // 2:
            half = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    receiver.stop()
    counted = sum(receiver.counters.values())
    assert counted == FRAMES, dict(receiver.counters)
    assert receiver.counters["rejected.unexpected"] == 0, dict(receiver.counters)
    rejected = sum(count for name, count in receiver.counters.items() if name.startswith("rejected."))
    assert rejected > FRAMES // 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - half < 64 * 1024, "KiB, in the second half"
