"""What is in force: file, live control and raises, one on top of the other."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from headwatch.capture.settings import Raised, Sampling, Settings, of_file, ordered
from headwatch.config import CaptureConfig, RouteConfig
from headwatch.wire.control import ControlMessage, Target

ROUTES = {"support": RouteConfig(sample_rate=0.5), "bulk": RouteConfig(sample_rate=0.0)}
CONFIG = CaptureConfig(sample_rate=0.1, step_stride=8, routes=ROUTES)
samplings = st.builds(Sampling, st.floats(0, 1), st.integers(1, 20), st.integers(0, 20), st.integers(0, 4))
adjustments = st.builds(
    RouteConfig, st.none() | st.floats(0, 1), st.none() | st.integers(1, 20), st.none() | st.integers(0, 20),
    st.none() | st.integers(0, 4),
)  # fmt: skip


def with_orders(**orders: object) -> Settings:
    return ordered(CONFIG, ControlMessage(1, "life-one", 0, 0, **orders), (), math.inf)  # type: ignore[arg-type]


def test_the_files_routes_have_their_own_values_and_the_rest_of_all():
    settings = of_file(CONFIG)
    assert settings.of("support") == Sampling(0.5, 8, 0, 1)
    assert settings.of("bulk").sample_rate == 0.0
    assert settings.of("other") == settings.of("") == Sampling(0.1, 8, 0, 1)
    assert (settings.enabled, settings.epoch, settings.deadline) == (True, 0, math.inf)


def test_live_control_wins_over_the_file_and_a_route_over_all():
    settings = with_orders(everything=RouteConfig(0.3, 2), routes={"hr": RouteConfig(detail=0), "bulk": RouteConfig(0.2)})
    assert settings.of("other") == Sampling(0.3, 2, 0, 1)
    assert settings.of("support") == Sampling(0.5, 2, 0, 1), "the file has a rate for this route, live control has none"
    assert settings.of("bulk") == Sampling(0.2, 2, 0, 1)
    assert settings.of("hr") == Sampling(0.3, 2, 0, 0)
    assert with_orders(enabled=False).enabled is False


def test_a_raise_covers_what_its_target_says_and_nothing_else():
    target = Target(route="hr", adapter="lora", context_from=512, context_to=1024)
    settings = Settings(Sampling(0.1, 8, 0, 1), raises=(Raised(target, RouteConfig(1.0, 1, 4, 2), 5.0),))
    raised, plain = Sampling(1.0, 1, 4, 2), Sampling(0.1, 8, 0, 1)
    assert settings.of("hr", "lora", 512) == settings.of("hr", "lora", 1023) == raised
    for route, adapter, tokens in (("hr", "lora", 511), ("hr", "lora", 1024), ("it", "lora", 600), ("hr", "", 600)):
        assert settings.of(route, adapter, tokens) == plain
    anything = Settings(plain, raises=(Raised(Target(), RouteConfig(detail=2), 5.0),))
    assert anything.of("", "", 0).detail == 2


@given(samplings, adjustments)
def test_a_raise_never_takes_anything_away(sampling: Sampling, to: RouteConfig):
    raised = sampling.raised(to)
    assert raised.sample_rate >= sampling.sample_rate
    assert raised.step_stride <= sampling.step_stride
    assert raised.detail >= sampling.detail
    assert (raised.prefill_stride or math.inf) <= (sampling.prefill_stride or math.inf)


@given(samplings, adjustments, adjustments)
def test_raises_may_come_in_any_order_and_twice(sampling: Sampling, one: RouteConfig, other: RouteConfig):
    both = sampling.raised(one).raised(other)
    assert both == sampling.raised(other).raised(one) == both.raised(one)
