"""The breaker opens, says why, tries again and closes."""

from __future__ import annotations

import pytest

from headwatch.capture.breaker import Breaker
from headwatch.errors import CaptureRefused


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_repeated_errors_open_the_breaker_and_one_good_step_closes_it(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    breaker = Breaker(limit=3, retry_seconds=60, clock=clock)
    for _ in range(3):
        assert breaker.closed
        breaker.failed(ValueError("bad layout"))
    assert not breaker.closed
    assert not breaker.up
    assert "bad layout" in breaker.reason
    assert breaker.errors == {"ValueError": 3}
    clock.now = 61
    assert breaker.closed, "half open: steps are tried until one tells"
    assert breaker.closed
    breaker.failed(ValueError("bad layout"))
    assert not breaker.closed, "it failed: another wait"
    clock.now = 119
    breaker.failed(ValueError("while open, an error of admission does not make it longer"))
    clock.now = 121
    assert breaker.closed
    breaker.succeeded()
    assert breaker.up
    assert breaker.reason == ""
    assert caplog.text.count("ValueError: bad layout") == 2, "the first error and the opening are logged, not each error"


def test_a_good_step_in_between_keeps_it_closed() -> None:
    breaker = Breaker(limit=2, retry_seconds=60)
    for _ in range(5):
        breaker.failed(CaptureRefused("layout", "unknown"))
        breaker.succeeded()
    assert breaker.up
    assert breaker.errors == {"layout": 5}
