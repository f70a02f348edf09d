"""An exporter that fails or stalls holds up nobody."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from headwatch.delivery import ATTEMPTS, QUEUE_DELIVERIES, ExporterThread
from headwatch.errors import ExportError
from headwatch.health import Health
from headwatch.records import Delivery

from ..programs import wait_for
from .incidents import canary, deploy, incident, resolved

EMPTY = Delivery(0, "vllm", (), (), Health(0, (), {}, {}))


class Flaky:
    """Fails the first *failures* times."""

    name = "flaky"

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.seen: list[Delivery] = []
        self.gate = threading.Event()
        self.gate.set()
        self.closed = False

    def export(self, delivery: Delivery) -> int:
        self.gate.wait(5)
        if self.failures:
            self.failures -= 1
            raise ExportError("connection refused")
        self.seen.append(delivery)
        return 3

    def close(self) -> None:
        self.closed = True


def test_a_failure_is_retried_and_recovers() -> None:
    exporter = Flaky(failures=2)
    thread = ExporterThread(exporter, first_pause_seconds=0.01)
    thread.start()
    thread.offer(EMPTY)
    deadline = time.monotonic() + 5
    while not exporter.seen and time.monotonic() < deadline:
        time.sleep(0.01)
    thread.stop()
    health = thread.health()
    assert (health.up, health.errors, health.exported_points, health.dropped_batches) == (True, 2, 3, 0)
    assert exporter.closed


def test_after_the_last_attempt_the_delivery_is_dropped_and_the_error_visible() -> None:
    exporter = Flaky(failures=ATTEMPTS)
    thread = ExporterThread(exporter, first_pause_seconds=0.001)
    thread.start()
    thread.offer(EMPTY)
    deadline = time.monotonic() + 5
    while not thread.health().dropped_batches and time.monotonic() < deadline:
        time.sleep(0.01)
    health = thread.health()
    thread.stop()
    assert not health.up
    assert health.dropped_batches == 1
    assert "connection refused" in health.last_error


def test_a_stalled_exporter_drops_the_oldest_and_never_blocks_the_pipeline() -> None:
    exporter = Flaky()
    exporter.gate.clear()
    thread = ExporterThread(exporter)
    thread.start()
    started = time.monotonic()
    for number in range(QUEUE_DELIVERIES + 20):
        thread.offer(Delivery(number, "vllm", (), (), EMPTY.health))
    assert time.monotonic() - started < 1.0
    assert thread.health().dropped_batches >= 19
    exporter.gate.set()
    thread.stop()
    assert exporter.seen[-1].time_ns == QUEUE_DELIVERIES + 19, "the newest is kept"


@pytest.mark.parametrize("away", ["stalled", "refused"])
def test_what_a_dropped_delivery_found_arrives_with_a_later_one(away: str) -> None:
    """It is told once, and a rule of Grafana pages on what the store has."""
    exporter = Flaky(failures=ATTEMPTS if away == "refused" else 0)
    exporter.gate.clear()
    thread = ExporterThread(exporter, first_pause_seconds=0.001)
    thread.start()
    if away == "stalled":
        thread.offer(EMPTY)
        wait_for(lambda: thread.health().queue_batches == 0, "the exporter to take it")
    thread.offer(replace(EMPTY, time_ns=1, incidents=(incident(1), incident(2)), canaries=(canary(time_ns=1),)))
    if away == "refused":
        exporter.gate.set()
        wait_for(lambda: thread.health().dropped_batches == 1, "the delivery to be given up")
        exporter.gate.clear()
    thread.offer(replace(EMPTY, time_ns=2, incidents=(resolved(1),), canaries=(canary(time_ns=2),), deploys=(deploy(),)))
    for number in range(QUEUE_DELIVERIES if away == "stalled" else 1):
        thread.offer(replace(EMPTY, time_ns=3 + number))
    exporter.gate.set()
    thread.stop()
    assert thread.health().dropped_batches == (2 if away == "stalled" else 1)
    told = [(one.id, one.state) for sent in exporter.seen for one in sent.incidents]
    assert told == [(incident(2).id, "open"), (incident(1).id, "resolved")], "each once, as it was last"
    assert [run.time_ns for sent in exporter.seen for run in sent.canaries] == [1, 2]
    assert [one for sent in exporter.seen for one in sent.deploys] == [deploy()]


def test_a_sidecar_that_ends_does_not_wait_for_a_peer_that_is_down() -> None:
    exporter = Flaky(failures=1000)
    thread = ExporterThread(exporter, first_pause_seconds=30.0)
    thread.start()
    thread.offer(EMPTY)
    time.sleep(0.1)
    started = time.monotonic()
    thread.stop()
    assert time.monotonic() - started < 2.0
    assert exporter.closed
    assert thread.health().dropped_batches == 1
