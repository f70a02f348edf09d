"""Faults inside capture: the engine's output stays its own, the fault is visible, capture recovers where it promises to.

Everything is real but the engine: hooks, breaker, sender, ZeroMQ, receiver.  The same with real vLLM is in
tests/e2e/test_faults.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zmq

from headwatch.capture import worker as worker_module
from headwatch.capture.attach import create
from headwatch.capture.breaker import Breaker
from headwatch.capture.kernels.torch_rows import TorchRows
from headwatch.capture.output.frames import FrameBuilder
from headwatch.capture.worker import Capture
from headwatch.config import CaptureConfig, Config, WireConfig
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry
from headwatch.model import FEATURES, SummaryBatch
from headwatch.wire import codec

from .engine import LAYER_NAMES, Engine

RETRY_SECONDS = 60.0
FIRST, LAST = 32, 40
"""Positions of the engine's only request: the last of its prompt, and the end of its cache."""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Pair:
    """An engine with capture in it, and what arrives at the other end of the wire."""

    engine: Engine
    capture: Capture
    clock: Clock
    seen: list[SummaryBatch] = field(default_factory=list)
    outputs: list[dict[str, torch.Tensor]] = field(default_factory=list)
    started: bool = False

    def run(self, first: int, last: int) -> None:
        """Take the steps that compute the positions from *first* up to, not including, *last*."""
        for length in range(first + 1, last + 1):
            self.capture.begin_step(self.engine.scheduled(new=not self.started))
            self.started = True
            self.outputs.append(self.engine.attend(length))
            self.capture.end_step()

    def positions(self) -> list[int]:
        return sorted(
            position for batch in self.seen for position in np.frombuffer(batch.row_position, "<i4").tolist()
        )

    def settle(self) -> dict[str, int]:
        """Wait until every planned row is accounted for, and return the counters."""
        until(lambda: balance(self.capture) == 0, f"{self.capture.status().counters}")
        return self.capture.status().counters


def balance(capture: Capture) -> int:
    counters = capture.status().counters
    return counters["rows_planned"] - counters["rows_sent"] - counters["rows_dropped"] - counters["rows_refused"]


def until(condition: Callable[[], bool], what: str = "", seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s {what}"
        time.sleep(0.02)


@contextmanager
def receiving(wire: WireConfig, seen: list[SummaryBatch]) -> Iterator[WorkerRegistry]:
    registry = WorkerRegistry()
    receiver = Receiver(wire, registry, lambda batch, _: seen.append(batch))
    receiver.start()
    try:
        yield registry
    finally:
        receiver.stop()


def wire_at(folder: Path, **settings: Any) -> WireConfig:
    return WireConfig(endpoint=f"ipc://{folder}/frames", status_seconds=0.1, **settings)


@contextmanager
def pair_on(wire: WireConfig, **capture: Any) -> Iterator[Pair]:
    engine = Engine()
    settings = {"step_stride": 1, "prefill_stride": 1, "error_limit": 3, "retry_seconds": RETRY_SECONDS, "budget_share": 1.0}
    made = create(Config(capture=CaptureConfig(**{**settings, **capture}), wire=wire), engine.worker)
    clock = Clock()
    made.breaker = Breaker(made.config.capture.error_limit, RETRY_SECONDS, clock)
    try:
        yield Pair(engine, made, clock)
    finally:
        made.sender.stop(2.0)


@pytest.fixture
def plain() -> list[dict[str, torch.Tensor]]:
    """What the engine computes without capture, step by step."""
    engine = Engine()
    return [engine.attend(length) for length in range(FIRST, LAST + 1)]


def assert_same(pair: Pair, plain: list[dict[str, torch.Tensor]]) -> None:
    assert len(pair.outputs) == len(plain)
    for mine, theirs in zip(pair.outputs, plain, strict=True):
        for name, output in theirs.items():
            assert torch.equal(mine[name], output), "capture changed what the engine computed"


def broken(*_: object, **__: object) -> None:
    raise MemoryError("injected")


class BrokenKernel(TorchRows):
    name = "broken"

    def summarise(self, *_: object) -> None:
        raise RuntimeError("injected")


HOOKS: dict[str, Callable[[pytest.MonkeyPatch, Capture], None]] = {
    "the start of a step": lambda patch, _: patch.setattr(worker_module, "holds_rows", broken),
    "the plan": lambda patch, _: patch.setattr(worker_module, "plan_step", broken),
    "the runner's batch": lambda patch, capture: patch.setattr(capture.runner, "batch", broken),
    "the summary buffer": lambda patch, _: patch.setattr(worker_module, "allocate_part", broken),
    "the pages of a layer": lambda patch, capture: patch.setattr(capture.runner, "block_table", broken),
    "the kernel": lambda patch, capture: patch.setattr(capture, "kernel", BrokenKernel()),
    "another core": lambda patch, capture: patch.setattr(capture.kernel, "settle", broken),
    "the end of a step": lambda patch, capture: patch.setattr(capture, "_offer", broken),
}


@pytest.mark.parametrize("place", HOOKS)
def test_an_exception_in_any_hook_is_seen_and_passes(
    tmp_path: Path, plain: list[dict[str, torch.Tensor]], place: str
) -> None:
    """Two good steps, four with the fault, three after it: rows come again once the breaker has waited."""
    seen: list[SummaryBatch] = []
    wire = wire_at(tmp_path)
    with receiving(wire, seen), pair_on(wire) as pair:
        pair.run(FIRST - 1, FIRST + 1)
        with pytest.MonkeyPatch.context() as patch:
            HOOKS[place](patch, pair.capture)
            pair.run(FIRST + 1, FIRST + 5)
            status = pair.capture.status()
            assert not status.up
            assert "injected" in status.reason
            assert sum(status.errors.values()) >= 3
        pair.clock.now += RETRY_SECONDS / 2
        pair.run(FIRST + 5, FIRST + 6)
        assert not pair.capture.status().up, "it waits before it tries again"
        pair.clock.now += RETRY_SECONDS
        pair.run(FIRST + 6, LAST)
        assert_same(pair, plain)
        status = pair.capture.status()
        assert status.up
        assert status.reason == ""
        pair.settle()
        until(lambda: sum(len(batch.row_position) // 4 for batch in seen) == pair.capture.sender.rows_sent)
    pair.seen = seen
    assert pair.positions()[:2] == [FIRST - 1, FIRST]
    assert pair.positions()[-2:] == [LAST - 2, LAST - 1], "rows come again"


def test_a_context_that_cannot_be_read_harms_only_its_own_request(tmp_path: Path) -> None:
    with pair_on(wire_at(tmp_path)) as pair:
        for _ in range(5):
            pair.capture.begin_step(pair.engine.scheduled(new=True, context="{"))
            pair.engine.attend(FIRST)
            pair.capture.end_step()
        assert sum(pair.capture.status().errors.values()) == 5
        pair.clock.now += RETRY_SECONDS + 1
        pair.run(FIRST - 1, FIRST + 2)
        assert pair.capture.status().up
        assert pair.capture.counters["rows_planned"] == 3


@pytest.mark.parametrize("fault", ["wrong pages", "NaN in K"])
def test_what_is_read_wrongly_is_refused_and_never_sent(
    tmp_path: Path, plain: list[dict[str, torch.Tensor]], fault: str
) -> None:
    """From the first step on, so that the self-check sees it; both layers read the same pages, so both are refused."""
    seen: list[SummaryBatch] = []
    wire = wire_at(tmp_path)
    with receiving(wire, seen) as registry, pair_on(wire) as pair:
        if fault == "wrong pages":
            right = pair.capture.runner.block_table
            pair.capture.runner.block_table = lambda name: right(name).flip(1)  # type: ignore[method-assign]
        else:
            pair.engine.cache[pair.engine.blocks[0], :, 0, 3] = float("nan")
        pair.run(FIRST - 1, LAST)
        assert_same(pair, plain)
        status = pair.capture.status()
        assert set(status.refused_layers) == set(LAYER_NAMES)
        assert all(text.startswith("self_check") for text in status.refused_layers.values())
        assert not status.up
        assert status.reason == "every attention layer was refused"
        counters = pair.settle()
        assert counters["rows_sent"] == 0
        until(lambda: any(not health.status.up for health in registry.health()), "the sidecar hears that capture is down")
    assert all(not batch.row_position for batch in seen)


def test_a_nan_that_comes_later_is_undefined_and_not_a_number(
    tmp_path: Path, plain: list[dict[str, torch.Tensor]]
) -> None:
    """After the layers have earned their trust: the row's features are undefined (NaN), the frame is taken, capture is up."""
    seen: list[SummaryBatch] = []
    wire = wire_at(tmp_path)
    with receiving(wire, seen), pair_on(wire) as pair:
        pair.run(FIRST - 1, FIRST + 4)
        assert all(item.trust.exportable for item in pair.capture.layers.values())
        pair.engine.cache[pair.engine.blocks[0], :, 0, 3] = float("nan")
        pair.run(FIRST + 4, LAST)
        assert_same(pair, plain)
        pair.settle()
        until(lambda: sum(len(batch.row_position) // 4 for batch in seen) == pair.capture.sender.rows_sent)
    last = np.frombuffer(seen[-1].features, "<f4").reshape(-1, len(FEATURES))
    assert np.isnan(last).any() or not pair.capture.status().up, "no number may be made of it"


def test_a_full_queue_drops_and_counts(tmp_path: Path, plain: list[dict[str, torch.Tensor]]) -> None:
    """No sidecar, room for one frame: all others are dropped at once; when the sidecar comes, the rest arrives."""
    seen: list[SummaryBatch] = []
    wire = wire_at(tmp_path, queue_frames=1)
    with pair_on(wire) as pair:
        pair.run(FIRST - 1, LAST)
        assert_same(pair, plain)
        assert pair.capture.status().up
        assert pair.capture.status().counters["rows_dropped"] >= LAST - FIRST + 1 - 2
        with receiving(wire, seen) as registry:
            counters = pair.settle()
            until(lambda: len(seen) == counters["frames_sent"])
            until(lambda: len(registry.health()) == 1)
            assert registry.health()[0].frames_missing > 0 or counters["frames_dropped"] == counters["rows_dropped"]
    assert counters["rows_sent"] + counters["rows_dropped"] == LAST - FIRST + 1


def test_a_dead_sidecar_holds_nothing_up_and_its_successor_hears_again(
    tmp_path: Path, plain: list[dict[str, torch.Tensor]]
) -> None:
    first: list[SummaryBatch] = []
    second: list[SummaryBatch] = []
    wire = wire_at(tmp_path)
    with pair_on(wire) as pair:
        with receiving(wire, first):
            pair.run(FIRST - 1, FIRST + 2)
            until(lambda: len(first) == 3)
        slowest = 0.0
        for position in range(FIRST + 2, LAST - 1):
            started = time.monotonic()
            pair.run(position, position + 1)
            slowest = max(slowest, time.monotonic() - started)
        with receiving(wire, second):
            pair.run(LAST - 1, LAST)
            pair.settle()
            until(lambda: bool(second) and second[-1].sequence == pair.capture.status().sequence - 1)
        assert_same(pair, plain)
        assert slowest < 1.0
        assert pair.capture.status().up


def test_a_sidecar_that_stops_reading_blocks_nobody(tmp_path: Path, plain: list[dict[str, torch.Tensor]]) -> None:
    """A socket that is bound and never read: the queues on both sides fill, the engine goes on, the rest is dropped."""
    wire = wire_at(tmp_path, queue_frames=2)
    with zmq.Context() as context, context.socket(zmq.PULL) as deaf:
        deaf.setsockopt(zmq.RCVHWM, 1)
        deaf.setsockopt(zmq.LINGER, 0)
        deaf.bind(wire.endpoint)
        with pair_on(wire) as pair:
            pair.run(FIRST - 1, LAST)
            assert_same(pair, plain)
            for _ in range(3000):  # until kernel buffers, socket and queue are full
                started = time.monotonic()
                pair.capture.sender.offer(lambda: frame(pair.capture), 1)
                assert time.monotonic() - started < 0.5
            assert pair.capture.sender.frames_dropped > 0
            assert pair.capture.status().up
            sender, received = pair.capture.sender, 0

            def read() -> bool:
                nonlocal received
                while deaf.poll(50):
                    received += isinstance(codec.decode(deaf.recv()), SummaryBatch)
                return sender.frames_sent + sender.frames_dropped == 3000 + len(plain) and received == sender.frames_sent

            until(read, "once it reads, what waited comes")
            assert received > 0


def frame(capture: Capture) -> SummaryBatch:
    return FrameBuilder(capture.identity, 0, 0, [], None, 1, ["x" * 4096], 0)()


def test_a_frame_that_cannot_be_built_is_dropped_and_the_next_one_comes(
    tmp_path: Path, plain: list[dict[str, torch.Tensor]]
) -> None:
    seen: list[SummaryBatch] = []
    wire = wire_at(tmp_path)
    with receiving(wire, seen), pair_on(wire) as pair:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FrameBuilder, "__call__", broken)
            pair.run(FIRST - 1, FIRST + 3)
            counters = pair.settle()
        assert counters["rows_dropped"] == 4
        assert pair.capture.status().errors == {"MemoryError": 4}
        pair.run(FIRST + 3, LAST)
        pair.settle()
        until(lambda: len(seen) == LAST - FIRST - 3)
        assert_same(pair, plain)


def test_a_status_that_cannot_be_told_stops_no_frame(tmp_path: Path) -> None:
    seen: list[SummaryBatch] = []
    wire = wire_at(tmp_path)
    with pair_on(wire) as pair, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair.capture.sender, "_status", broken)
        with receiving(wire, seen):
            pair.run(FIRST - 1, LAST)
            until(lambda: len(seen) == LAST - FIRST + 1)
            until(lambda: pair.capture.status().errors.get("MemoryError", 0) >= 1, "a status falls due ten times a second")


@pytest.mark.parametrize("jump_seconds", [3600.0, -3600.0])
def test_a_clock_that_jumps_stops_nothing(
    tmp_path: Path, plain: list[dict[str, torch.Tensor]], jump_seconds: float
) -> None:
    """Both clocks jump in the middle of a step, under a real budget: the outputs are the same, rows come before and after."""
    seen: list[SummaryBatch] = []
    wire = wire_at(tmp_path)
    with receiving(wire, seen), pair_on(wire, budget_share=0.9) as pair:
        pair.run(FIRST - 1, FIRST + 3)
        wall, precise = time.time_ns, time.perf_counter
        with pytest.MonkeyPatch.context() as patch:
            pair.capture.begin_step(pair.engine.scheduled(new=False))
            patch.setattr(time, "time_ns", lambda: wall() + int(jump_seconds * 1e9))
            patch.setattr(time, "perf_counter", lambda: precise() + jump_seconds)
            pair.outputs.append(pair.engine.attend(FIRST + 4))
            pair.capture.end_step()
            pair.run(FIRST + 4, FIRST + 5)
        pair.run(FIRST + 5, LAST)
        assert_same(pair, plain)
        assert pair.capture.status().up
        assert pair.capture.status().errors == {}
        counters = pair.settle()
        assert counters["rows_planned"] + counters["rows_thinned"] == LAST - FIRST + 1
        until(lambda: len(seen) >= counters["frames_sent"])
