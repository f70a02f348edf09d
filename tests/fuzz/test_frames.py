"""Random and mutated frames: each is taken or counted by reason, none ends the sidecar."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from headwatch.aggregate.evidence import EvidenceQueue
from headwatch.aggregate.windows import Aggregator
from headwatch.config import EvidenceConfig, TextConfig, WindowConfig, WireConfig
from headwatch.errors import TextError
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry
from headwatch.model import (
    FEATURES,
    Document,
    RequestContext,
    Span,
    StatusFrame,
    SummaryBatch,
    TextFrame,
    WorkerIdentity,
)
from headwatch.text.keeper import TextKeeper
from headwatch.text.keys import new_key
from headwatch.wire import codec
from headwatch_exporters.clickhouse.columns.texts import text_columns

from ..unit.frames import detailed
from .harness import feed, mutate

if TYPE_CHECKING:
    import random

LAYERS, HEADS = 2, 3
FRESH_NS = 10**18


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
    asked = msgspec.structs.replace(context, spans=[])
    text = TextFrame("source", 3, FRESH_NS, "model", asked, "prompt", "Where is a@b.de? ü", 40)
    return [
        codec.encode(summary), codec.encode(status), codec.encode(detailed(4)), codec.encode(detailed(2, values=False)),
        codec.encode(text),
    ]  # fmt: skip


def mutated(payload: bytes, source: random.Random) -> bytes:
    """Return *payload* changed in its bytes, or with a field of another type."""
    if source.randrange(5):
        return mutate(payload, source)
    try:
        fields = msgspec.msgpack.decode(payload[2:])
        name = source.choice(list(fields))
        fields[name] = source.choice([None, -1, 2**63, "", b"", [], {}, [[]], float("nan"), "x" * 1000])
        return payload[:2] + msgspec.msgpack.encode(fields)
    except (msgspec.MsgspecError, TypeError, IndexError, OverflowError, UnicodeError):
        return payload  # it was changed before, and is no frame any more


@pytest.mark.parametrize("count", [7_000, pytest.param(70_000, marks=pytest.mark.long)])
def test_every_frame_is_taken_or_counted_by_reason(count: int) -> None:
    evidence = EvidenceQueue(EvidenceConfig(max_bytes=1 << 20))
    aggregator = Aggregator(WindowConfig(max_strata=8, max_open_requests=64), {}, evidence)
    keys = {"HEADWATCH_TEXT_KEY": new_key()}
    keeper = TextKeeper(TextConfig(enabled=True, default="keep"), "vllm", keys, lambda: FRESH_NS)
    texts: Counter[str] = Counter()

    def keep(frame: TextFrame) -> None:
        keeper.offer(frame)
        if (row := keeper._next()) is not None:
            try:
                texts["kept"] += bool(text_columns([keeper.kept(row)], "vllm"))
            except TextError as error:
                texts[error.reason] += 1

    receiver = Receiver(WireConfig(), WorkerRegistry(), aggregator.add, texts=keep)
    turns = itertools.count()

    def take(payload: bytes) -> str:
        before = receiver.counters.copy()
        receiver.accept(payload)
        if next(turns) % 500 == 0:
            aggregator.collect(0, everything=True)
            evidence.take()
        (word,) = (receiver.counters - before).keys() - {"thinned_rows", "thinned_head_summaries"}
        return word

    said = feed(count, frames(), take, mutation=mutated)
    receiver.stop()
    assert "rejected.unexpected" not in said, said
    assert texts["kept"] > count // 500, texts
    assert texts.keys() <= {"kept", "expired", "canary"}, texts
    assert sum(number for word, number in said.items() if word.startswith("rejected.")) > count // 2
    assert said["text_frames"] > count // 1000, said
    assert len(said) >= 6, f"the mutants hardly reach anything: {said}"
