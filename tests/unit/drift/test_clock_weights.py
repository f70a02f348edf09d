"""Weights of the clocks: they sum to one at most whatever an operator sets, and what there is not is refused."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.config import DriftConfig
from headwatch.drift.clock import DEFAULT_FAMILIES, RESERVE
from headwatch.drift.parts import Key
from headwatch.drift.weights import SHARES, SIGNAL_FAMILIES, Weights, clocks
from headwatch.errors import ConfigError

NAMES = [*DEFAULT_FAMILIES, *SIGNAL_FAMILIES]
WEIGHT = st.floats(0.0, 100.0)


def pager(**settings: object) -> Weights:
    return clocks(DriftConfig(**settings))[0]


def of_parts(weights: Weights, orders: dict[Key, int]) -> dict[Key, float]:
    """The label of a key stands for its route."""
    return weights.of_parts(orders, {key: key.label for key in orders})


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 20))
def test_weights_sum_to_one_with_what_is_kept_for_newcomers(strata: int, scopes: int, newcomers: int) -> None:
    orders = {
        **{Key("heads", str(n)): 0 for n in range(strata)}, **{Key("signal", str(n)): 0 for n in range(scopes)},
        **{Key("heads", f"new {n}"): n + 1 for n in range(newcomers)},
    }  # fmt: skip
    weights = of_parts(pager(), orders)
    founders = sum(weight for key, weight in weights.items() if not orders[key])
    assert founders == pytest.approx(1.0 - RESERVE if strata + scopes else 0.0)
    assert sum(weights.values()) <= 1.0 + 1e-9


@given(
    st.dictionaries(st.sampled_from(NAMES), WEIGHT), st.dictionaries(st.sampled_from("abcd"), WEIGHT),
    st.dictionaries(st.sampled_from(("entropy", "lookback", "document_mass", "source_share.wiki", "source_share")), WEIGHT),
    st.lists(st.sampled_from(NAMES), max_size=4), st.lists(st.tuples(st.booleans(), st.sampled_from("abcde")), max_size=10),
    st.integers(0, 10),
)  # fmt: skip
def test_whatever_is_set_no_clock_has_more_than_one_in_all(families, routes, features, shadow, parts, newcomers) -> None:
    """The law on which the promise rests, for the pager's clock and for that of families in shadow."""
    config = DriftConfig(
        family_weights=families, route_weights=routes, feature_weights=features, shadow_families=tuple(shadow)
    )
    try:
        made = clocks(config)
    except ConfigError:
        return  # nothing could page
    founders = [Key("heads" if heads else "signal", route) for heads, route in parts]
    orders = {key: max(0, place - len(founders) + 1 + newcomers) for place, key in enumerate(founders)}
    names = ("entropy", "lookback", "document_mass", "source_share.wiki", "source_share.web")
    for weights in made:
        if weights is None:
            continue
        of = of_parts(weights, orders)
        assert all(weight >= 0.0 for weight in of.values())
        assert sum(weight for key, weight in of.items() if not orders[key]) <= 1.0 - RESERVE + 1e-9
        assert sum(weight for key, weight in of.items() if orders[key]) <= RESERVE + 1e-9
        chosen = weights.of_features(names)
        assert chosen is None or (chosen.min() >= 0.0 and chosen.sum() <= 1.0 + 1e-9)


def test_a_route_with_the_smallest_weight_there_is_takes_no_more_than_its_share() -> None:
    orders = {Key("heads", "b"): 0, Key("signal", "a"): 0}
    weights = of_parts(pager(route_weights={"b": 5e-324}), orders)
    assert sum(weights.values()) == pytest.approx(1.0 - RESERVE)


def test_heads_and_signals_share_by_the_weights_of_their_families() -> None:
    orders = dict.fromkeys((Key("heads", "a"), Key("heads", "b"), Key("signal", "a")), 0)
    weights = of_parts(pager(), orders)
    assert weights[Key("heads", "a")] == pytest.approx((1 - RESERVE) * SHARES["heads"] / 2)
    assert weights[Key("signal", "a")] == pytest.approx((1 - RESERVE) * SHARES["signal"])
    off = of_parts(pager(family_weights={"signals.mean": 0.0, "signals.spread": 0.0}), orders)
    assert off[Key("signal", "a")] == 0.0
    assert off[Key("heads", "a")] == pytest.approx((1 - RESERVE) / 2)


def test_routes_share_what_their_kind_has() -> None:
    orders = dict.fromkeys((Key("heads", "a"), Key("heads", "b"), Key("heads", "c"), Key("signal", "b")), 0)
    weights = of_parts(pager(route_weights={"a": 3.0, "c": 0.0}), orders)
    heads = (1 - RESERVE) * SHARES["heads"]
    assert weights[Key("heads", "a")] == pytest.approx(heads * 3 / 4)
    assert weights[Key("heads", "b")] == pytest.approx(heads / 4)
    assert weights[Key("heads", "c")] == 0.0
    assert weights[Key("signal", "b")] == pytest.approx((1 - RESERVE) * SHARES["signal"])
    off = of_parts(pager(route_weights={"a": 0.0, "c": 0.0}), {**orders, Key("signal", "c"): 1, Key("signal", "d"): 2})
    assert off[Key("signal", "c")] == 0.0, "a newcomer of a route that is off is off"
    assert off[Key("signal", "d")] == pytest.approx(RESERVE / 6)


def test_where_every_route_of_a_kind_is_off_the_other_kind_has_it_all() -> None:
    weights = of_parts(pager(route_weights={"b": 0.0}), dict.fromkeys((Key("heads", "a"), Key("signal", "b")), 0))
    assert weights == {Key("heads", "a"): pytest.approx(1 - RESERVE), Key("signal", "b"): 0.0}


def test_features_share_their_part() -> None:
    weights = pager(feature_weights={"entropy": 0.0, "lookback": 3.0, "source_share": 2.0})
    np.testing.assert_allclose(weights.of_features(("entropy", "lookback", "distance")), [0.0, 0.75, 0.25])
    np.testing.assert_allclose(weights.of_features(("source_share.wiki", "document_mass")), [2 / 3, 1 / 3])
    assert weights.of_features(("distance", "sink_mass")) is None, "equal ones are a plain mean"
    np.testing.assert_array_equal(weights.of_features(("entropy",)), [0.0])


def test_families_in_shadow_are_for_the_others_as_if_their_weights_were_zero() -> None:
    orders = dict.fromkeys((Key("heads", "a"), Key("signal", "a")), 0)
    one, shadow = clocks(DriftConfig(shadow_families=("lasting.8", "signals.mean")))
    assert of_parts(one, orders) == of_parts(pager(family_weights={"lasting.8": 0.0, "signals.mean": 0.0}), orders)
    assert shadow is not None
    assert {name for own in shadow.families.values() for name in own} == {"lasting.8", "signals.mean"}
    heads, signals = 0.15 * SHARES["heads"], 0.8 * SHARES["signal"]
    assert of_parts(shadow, orders)[Key("heads", "a")] == pytest.approx((1 - RESERVE) * heads / (heads + signals))


def test_without_settings_there_is_one_clock() -> None:
    one, shadow = clocks(DriftConfig())
    assert shadow is None
    assert sum(sum(own.values()) for own in one.families.values()) == pytest.approx(1.0)
    assert msgspec.to_builtins(one)["routes"] == {}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"family_weights": {"heads.men": 1.0}}, r"drift\.family_weights: there is no family 'heads\.men'; known: heads"),
        ({"family_weights": dict.fromkeys(NAMES, 0.0)}, "every weight is 0, so nothing could page"),
        ({"shadow_families": ("lasting.9",)}, r"drift\.shadow_families: there is no family 'lasting\.9'; known: .*signals"),
        ({"shadow_families": tuple(NAMES)}, r"drift\.shadow_families: no other family has a weight.*drift\.shadow does that"),
        ({"shadow_families": ("lasting.8",), "family_weights": {"lasting.8": 0.0}}, "none would be judged"),
        ({"feature_weights": {"entropi": 1.0}}, r"drift\.feature_weights: there is no feature or signal 'entropi'; known: ent"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_one_clear_error(settings, said) -> None:
    with pytest.raises(ConfigError, match=said):
        clocks(DriftConfig(**settings))
