"""Sender and receiver over real sockets: bounded, counted, indifferent to who starts first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import zmq

from headwatch.capture.output.sender import Sender
from headwatch.config import WireConfig
from headwatch.errors import CommandError
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry
from headwatch.wire import codec

from .frames import status, summary, worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROW = (10, {"entropy": 0.5}, [0.2] * 5)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def wire(path: Path, **settings: object) -> WireConfig:
    return WireConfig(endpoint=f"ipc://{path}/wire", status_seconds=0.1, **settings)  # type: ignore[arg-type]


def receiver(config: WireConfig, registry: WorkerRegistry | None = None) -> tuple[Receiver, list[int]]:
    seen: list[int] = []
    made = Receiver(config, registry or WorkerRegistry(), lambda batch, _: seen.append(batch.sequence))
    made.start()
    return made, seen


@pytest.mark.parametrize("sidecar_first", [True, False])
def test_frames_arrive_whoever_starts_first(tmp_path: Path, sidecar_first: bool) -> None:
    config = wire(tmp_path)
    sender = Sender(config, status)
    if not sidecar_first:
        sender.start()
        sender.offer(lambda: summary([ROW]), 1)
        time.sleep(0.2)
    registry = WorkerRegistry()
    sidecar, seen = receiver(config, registry)
    if sidecar_first:
        sender.start()
        sender.offer(lambda: summary([ROW]), 1)
    until(lambda: seen == [0])
    until(lambda: len(registry.health()) == 1)
    sender.stop()
    sidecar.stop()
    assert (sender.frames_sent, sender.rows_sent, sender.frames_dropped) == (1, 1, 0)


def test_without_a_sidecar_nothing_blocks_and_the_rest_is_dropped_and_counted(tmp_path: Path) -> None:
    sender = Sender(wire(tmp_path, queue_frames=4), status)
    sender.start()
    started = time.monotonic()
    for number in range(100):
        sender.offer(lambda number=number: summary([ROW], sequence=number), 1)  # type: ignore[misc]
    assert time.monotonic() - started < 1.0
    assert 95 <= sender.frames_dropped <= 96, "four wait in the queue and at most one in the sender's hand"
    sender.stop(3.0)
    assert sender.rows_dropped == sender.frames_dropped == 100, "what nobody took is accounted for"


def test_large_frames_reach_the_bound_of_the_queue_before_many_small_ones_do(tmp_path: Path) -> None:
    """Memory inside the engine is bounded in bytes; one frame alone is always taken, however large."""
    sender = Sender(wire(tmp_path, queue_bytes=100), status)
    sender.offer(lambda: summary([ROW]), 1, 1000)
    assert sender.frames_dropped == 0
    sender.offer(lambda: summary([ROW]), 3, 10)
    assert (sender.frames_dropped, sender.rows_dropped) == (1, 3)
    sender.start()
    sidecar, seen = receiver(wire(tmp_path))
    until(lambda: seen == [0])
    sender.offer(lambda: summary([ROW], sequence=1), 1, 90)
    until(lambda: seen == [0, 1])
    sender.stop()
    sidecar.stop()
    assert sender._queued_bytes == 0


def test_a_frame_that_the_sidecar_would_not_take_is_dropped_and_the_line_stays_open(tmp_path: Path) -> None:
    """ZeroMQ would end the connection for it, and lose what is in flight."""
    config = wire(tmp_path, max_frame_bytes=2000)
    sender = Sender(config, status)
    sender.start()
    sidecar, seen = receiver(config)
    sender.offer(lambda: summary([ROW] * 50, sequence=0), 50)
    sender.offer(lambda: summary([ROW], sequence=1), 1)
    until(lambda: seen == [1])
    sender.stop()
    sidecar.stop()
    assert (sender.frames_too_large, sender.frames_dropped, sender.rows_dropped) == (1, 1, 50)
    assert (sender.frames_sent, sender.rows_sent) == (1, 1)


def test_a_restarted_sidecar_counts_what_it_missed(tmp_path: Path) -> None:
    """Frames 3 and 4 are lost while no sidecar runs; the next one knows, from the file its predecessor kept."""
    config, path = wire(tmp_path), tmp_path / "marks.json"
    first = WorkerRegistry(path)
    sidecar, seen = receiver(config, first)
    for number in range(3):
        sidecar.accept(codec.encode(summary([ROW], sequence=number)))
    first.save()
    sidecar.stop()
    second = WorkerRegistry(path)
    sidecar, seen = receiver(config, second)
    sidecar.accept(codec.encode(summary([ROW], sequence=5)))
    sidecar.accept(codec.encode(status(6)))
    sidecar.stop()
    (health,) = second.health()
    assert seen == [5]
    assert health.frames_missing == 2
    assert health.frames_received == 4


def test_a_restarted_worker_begins_a_new_count(tmp_path: Path) -> None:
    registry = WorkerRegistry()
    registry.summary(worker(), 7, 1)
    registry.status(status(identity=worker(start_ns=2)), 2)
    registry.summary(worker(start_ns=2), 0, 3)
    (health,) = registry.health()
    assert health.frames_missing == 0


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "magic"),
        (b"hello", "magic"),
        (b"\xa7\x09rest", "version"),
        (b"\xa7\x02\xc1", "malformed"),
        (codec.encode(summary([ROW]))[:-3], "malformed"),
    ],
)
def test_bytes_that_are_no_frame_are_counted_by_reason_and_lose_nothing(tmp_path: Path, payload: bytes, reason: str) -> None:
    sidecar, seen = receiver(wire(tmp_path))
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.connect(f"ipc://{tmp_path}/wire")
        socket.send(payload)
        socket.send(codec.encode(summary([ROW])))
        until(lambda: seen == [0])
    sidecar.stop()
    assert sidecar.counters[f"rejected.{reason}"] == 1


def test_an_endpoint_in_use_is_one_clear_error(tmp_path: Path) -> None:
    config = WireConfig(endpoint="tcp://127.0.0.1:*")
    probe = zmq.Context().socket(zmq.PULL)
    port = probe.bind_to_random_port("tcp://127.0.0.1")
    config = WireConfig(endpoint=f"tcp://127.0.0.1:{port}")
    with pytest.raises(CommandError, match=r"is another sidecar running"):
        Receiver(config, WorkerRegistry(), lambda *_: None).start()
    probe.close()


def test_a_sender_that_cannot_run_says_so_and_stays_quiet() -> None:
    sender = Sender(WireConfig(endpoint="nonsense"), status)
    sender.start()
    until(lambda: sender.error != "")
    sender.offer(lambda: summary([ROW]), 1)
    assert "nonsense" in sender.error
    sender.stop()
    assert sender.rows_dropped == 1
