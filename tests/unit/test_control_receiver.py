"""A worker hears orders: in force at once, never older than what it has, and gone when their time is up."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from headwatch.capture.settings import of_file
from headwatch.config import RouteConfig
from headwatch.wire.control import Raise, Target

from .controls import CAPTURE, Clock, message, receiver, tell

FILE = of_file(CAPTURE)
HALF = RouteConfig(sample_rate=0.5)
MORE = RouteConfig(step_stride=1)


def test_who_never_hears_anything_keeps_the_files_settings():
    clock = Clock()
    heard = receiver(clock)
    clock.forward(1e9)
    heard.expire()
    assert heard.settings == FILE


def test_an_order_is_in_force_as_soon_as_it_is_taken_and_stays_while_nothing_is_heard():
    clock = Clock()
    heard = receiver(clock)
    assert tell(heard, message(everything=HALF, routes={"hr": RouteConfig(detail=0)}))
    assert heard.settings.epoch == 1000
    assert (heard.settings.everything.sample_rate, heard.settings.of("hr").detail) == (0.5, 0)
    clock.forward(1e9)
    heard.expire()
    assert heard.settings.everything.sample_rate == 0.5


def test_the_off_switch_and_back():
    heard = receiver(Clock())
    tell(heard, message(enabled=False))
    assert not heard.settings.enabled
    tell(heard, message(1001))
    assert (heard.settings.enabled, heard.settings.everything) == (True, FILE.everything)


def test_stale_replayed_and_conflicting_messages_are_counted_and_change_nothing():
    heard = receiver(Clock())
    first, second = message(1001, 5, everything=HALF), message(1002, 1, everything=MORE)
    assert tell(heard, first)
    assert tell(heard, message(1001, 6, everything=HALF)), "a repeat is welcome"
    assert tell(heard, second)
    settings = heard.settings
    assert not tell(heard, first)
    assert not tell(heard, second)
    assert not tell(heard, message(1002, 0, everything=HALF))
    assert not tell(heard, message(1002, 9, "another-life", everything=HALF))
    assert heard.settings is settings
    assert heard.errors == {"control_stale": 1, "control_replayed": 2, "control_conflict": 1}


def test_a_message_with_another_secret_is_counted_and_changes_nothing():
    heard = receiver(Clock())
    assert not tell(heard, message(enabled=False), b"the secret of some other pair...")
    assert heard.settings == FILE
    assert heard.errors == {"control_mac": 1}


@given(st.binary(max_size=200))
def test_garbage_is_counted_and_changes_nothing(payload: bytes):
    heard = receiver(Clock())
    assert not heard.accept(payload, b"x" * 32)
    assert heard.settings == FILE
    assert sum(heard.errors.values()) == 1


def test_orders_with_a_limit_go_back_to_the_file_by_themselves():
    """Also where the sidecar is dead: nothing is heard in between."""
    clock = Clock()
    heard = receiver(clock)
    tell(heard, message(since=1000, enabled=False, everything=HALF, expires_seconds=60.0))
    assert heard.settings.deadline == clock() + 60.0
    clock.forward(59.9)
    heard.expire()
    assert not heard.settings.enabled
    clock.forward(0.1)
    heard.expire()
    assert (heard.settings.enabled, heard.settings.everything) == (True, FILE.everything)
    assert heard.settings.routes == FILE.routes
    assert heard.settings.epoch == 1000, "it follows the message to its end"
    assert heard.settings.deadline == math.inf


def test_repeats_and_replays_never_prolong_a_limit():
    """The second message claims the full time anew, as a replay or a sidecar with a wrong clock would."""
    clock = Clock()
    heard = receiver(clock)
    raised = Raise(1001, Target(route="hr"), MORE, 60.0)
    tell(heard, message(1001, 1, since=1000, everything=HALF, expires_seconds=50.0, raises=[raised]))
    clock.forward(40.0)
    tell(heard, message(1001, 2, since=1000, everything=HALF, expires_seconds=50.0, raises=[raised]))
    clock.forward(5.0)
    tell(heard, message(2000, 1, "life-two", since=1000, everything=HALF, expires_seconds=50.0, raises=[raised]))
    clock.forward(5.0)
    heard.expire()
    assert heard.settings.everything.sample_rate == FILE.everything.sample_rate
    assert heard.settings.of("hr").step_stride == 1
    clock.forward(10.0)
    heard.expire()
    assert heard.settings.of("hr").step_stride == 8
    tell(heard, message(2000, 2, "life-two", since=1000, everything=HALF, expires_seconds=50.0, raises=[raised]))
    assert heard.settings.of("hr").step_stride == 8, "what has run out stays so"


def test_a_new_limit_may_be_longer():
    clock = Clock()
    heard = receiver(clock)
    tell(heard, message(1000, 1, since=1000, everything=HALF, expires_seconds=10.0))
    tell(heard, message(1001, 1, since=1001, everything=HALF, expires_seconds=100.0))
    clock.forward(50.0)
    heard.expire()
    assert heard.settings.everything.sample_rate == 0.5


def test_a_raise_outlives_the_limit_of_the_other_orders_and_the_other_way_round():
    clock = Clock()
    heard = receiver(clock)
    raises = [Raise(1001, Target(), RouteConfig(detail=1, sample_rate=1.0), 20.0), Raise(1002, Target(), MORE, 40.0)]
    tell(heard, message(1002, since=1000, everything=HALF, expires_seconds=30.0, raises=raises))
    seen = []
    for _ in range(4):
        sampling = heard.settings.of("other")
        seen.append((sampling.sample_rate, sampling.step_stride))
        clock.forward(heard.settings.deadline - clock() if heard.settings.deadline < math.inf else 1.0)
        heard.expire()
    assert seen == [(1.0, 1), (0.5, 1), (0.1, 1), (0.1, 8)]


def test_clocks_that_jump_move_nothing():
    """The sidecar's clock says 1970, then 2100: only the receiver's own seconds count."""
    clock = Clock()
    heard = receiver(clock)
    for sequence, issued in enumerate((0, 4_102_444_800_000_000_000, -5)):
        said = message(1000, sequence, since=1000, enabled=False, expires_seconds=60.0)
        assert tell(heard, type(said)(said.epoch, said.start_id, sequence, issued, 1000, False, expires_seconds=60.0))
    assert heard.settings.deadline == clock() + 60.0


def test_a_raise_for_another_model_is_none_of_ours():
    raises = [Raise(1001, Target(model="other"), MORE, 20.0), Raise(1002, Target(model="model"), RouteConfig(1.0), 20.0)]
    clock = Clock()
    worker, front_end = receiver(clock, "model"), receiver(clock, "")
    for heard in (worker, front_end):
        tell(heard, message(1002, raises=raises))
    assert (worker.settings.everything.step_stride, worker.settings.of("").step_stride) == (8, 8)
    assert worker.settings.of("").sample_rate == 1.0
    assert front_end.settings.of("").step_stride == 1, "it does not know its model, and goes by the rest"
