"""A change turns orders into orders: what it says and nothing more, or it is refused with the reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.bands import context_band
from headwatch.config import RouteConfig
from headwatch.control.orders import Change, Orders, changed, difference, target_of, without
from headwatch.errors import ControlError
from headwatch.records import Stratum
from headwatch.wire.control import Target


def after(*changes: Change, orders: Orders | None = None) -> Orders:
    orders = orders or Orders()
    for epoch, change in enumerate(changes, 1):
        orders = changed(orders, change, epoch, "me")
    return orders


RATE, DETAIL = RouteConfig(sample_rate=0.5), RouteConfig(detail=0)


def test_what_is_set_adds_to_what_was_set():
    orders = after(Change("set", to=RATE), Change("set", to=DETAIL), Change("set", route="hr", to=DETAIL))
    assert orders == Orders(everything=RouteConfig(sample_rate=0.5, detail=0), routes={"hr": DETAIL})


def test_off_keeps_the_rest_and_on_brings_it_back():
    off = after(Change("set", to=RATE), Change("off"))
    assert (off.enabled, off.everything) == (False, RATE)
    assert after(Change("on"), orders=off) == after(Change("set", to=RATE))


def test_reset_takes_back_one_route_or_everything():
    orders = after(Change("set", to=RATE), Change("set", route="hr", to=DETAIL), Change("off", seconds=5.0),
                   Change("raise", to=DETAIL, seconds=5.0))  # fmt: skip
    assert after(Change("reset", route="hr"), orders=orders) == msgspec.structs.replace(orders, routes={})
    assert after(Change("reset"), orders=orders) == Orders()


def test_a_limit_stays_until_another_is_given():
    orders = after(Change("off", seconds=60.0), Change("set", to=RATE))
    assert (orders.since, orders.seconds) == (1, 60.0)
    assert after(Change("set", to=RATE, seconds=0.0), orders=orders).limits == {}
    assert changed(orders, Change("on", seconds=9.0), 7, "").limits == {7: 9.0}


def test_what_a_limit_ends_is_everything_that_stood_under_it_and_no_raise():
    orders = after(Change("raise", to=DETAIL, seconds=5.0), Change("off", seconds=9.0), Change("set", to=RATE))
    assert without(orders, {2}) == Orders(raises=orders.raises)
    assert without(orders, {1}) == msgspec.structs.replace(orders, raises=())


def test_a_raise_knows_who_ordered_it_and_can_be_ended():
    orders = after(Change("raise", target=Target(route="hr"), to=RATE, seconds=5.0, why="incident 3"))
    (raised,) = orders.raises
    assert (raised.number, raised.target.route, raised.who, raised.why, raised.seconds) == (1, "hr", "me", "incident 3", 5.0)
    assert after(Change("end", number=1), orders=orders).raises == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Change("set"), "nothing to set"),
        (Change("set", route="hr"), "nothing to set"),
        (Change("raise", to=RATE), "needs values .* and a time limit"),
        (Change("raise", to=RATE, seconds=0.0), "needs values .* and a time limit"),
        (Change("raise", seconds=5.0), "needs values"),
        (Change("reset", route="nowhere"), "route 'nowhere' has no orders"),
        (Change("end", number=3), "no raise 3"),
        (Change("end"), "no raise None"),
    ],
)
def test_a_change_that_does_not_say_enough_is_refused(change: Change, message: str):
    with pytest.raises(ControlError, match=message):
        after(change)


def test_orders_are_bounded():
    with pytest.raises(ControlError, match="64 raises are in force"):
        after(*[Change("raise", to=RATE, seconds=5.0)] * 65)
    with pytest.raises(ControlError, match="256 routes"):
        after(*[Change("set", route=f"r{number}", to=RATE) for number in range(257)])


@pytest.mark.parametrize(
    "body",
    [
        {"action": "sett"},
        {"action": "set", "to": {"sample_rate": 2}},
        {"action": "set", "to": {"sample_rat": 1}},
        {"action": "set", "rate": 1},
        {"action": "off", "seconds": -1},
        {"action": "off", "seconds": 1e9},
        {"action": "raise", "target": {"rout": "x"}},
        {},
        [],
    ],
)
def test_a_change_with_a_mistake_is_no_change(body: Any):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(body), type=Change)


def test_the_difference_names_what_changed_as_it_was_and_as_it_is():
    old = after(Change("set", to=RATE), Change("set", route="hr", to=DETAIL))
    new = after(Change("set", to=RouteConfig(sample_rate=0.7)), Change("reset", route="hr"), Change("off"), orders=old)
    assert difference(old, new) == (
        {"enabled": True, "everything.sample_rate": 0.5, "routes.hr.detail": 0},
        {"enabled": False, "everything.sample_rate": 0.7, "routes.hr.detail": None},
    )
    assert difference(new, new) == ({}, {})


@given(st.integers(1, 200_000), st.integers(1, 200_000))
def test_the_target_of_a_stratum_covers_the_rows_of_its_context_band_and_no_other(one: int, other: int):
    target = target_of(Stratum("m", "rev", "lora", "hr", context_band(one), "decode"))
    assert (target.model, target.adapter, target.route) == ("m", "lora", "hr")
    inside = other >= target.context_from and (not target.context_to or other < target.context_to)
    assert inside == (context_band(one) == context_band(other))


def test_the_stratum_of_what_did_not_fit_has_no_band():
    target = target_of(Stratum("m", "", "", "other", "", "decode"))
    assert (target.context_from, target.context_to) == (0, 0)
