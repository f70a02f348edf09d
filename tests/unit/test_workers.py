"""What is believed of a worker's clock, from frames that may come late."""

from __future__ import annotations

import pytest

from headwatch.ingest.workers import SKEW_NS, WorkerRegistry

from .frames import status

SECOND = 10**9


def skews(clock_seconds: float, delays: list[float], every_seconds: float = 2.0, registry: WorkerRegistry | None = None):
    """Return what is believed after each status that came late by one of *delays* from a clock that is off by so much."""
    registry = registry or WorkerRegistry()
    believed = []
    for number, delay in enumerate(delays):
        sent = 1_000 * SECOND + round(number * every_seconds * SECOND)
        registry.status(status(time_ns=sent + round(clock_seconds * SECOND)), sent + round(delay * SECOND))
        believed.append(registry.health()[0].clock_skew_seconds)
    return believed


@pytest.mark.parametrize("clock_seconds", [0.0, -300.0, 300.0])
def test_a_busy_machine_is_no_clock_that_is_behind(clock_seconds):
    believed = skews(clock_seconds, [0.0, 3.0, 5.6, 4.0, 0.1])
    assert believed == pytest.approx([clock_seconds] * 5)


def test_a_clock_that_was_set_back_is_seen_once_earlier_frames_are_too_old():
    registry = WorkerRegistry()
    assert skews(0.0, [0.0] * 3, registry=registry)[-1] == 0.0
    late = skews(-60.0, [0.0] * 40, registry=registry)
    assert late[0] == 0.0
    assert late[-1] == pytest.approx(-60.0)
    assert late.index(pytest.approx(-60.0)) * 2 * SECOND <= SKEW_NS + 6 * SECOND
