"""Effect sizes of named heads: what moved is seen, what chance gives stands beside it, and few requests give no size."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from headwatch.aggregate.histogram import BUCKETS, bucket_index, slot_middles
from headwatch.drift.effects.jensen_shannon import jensen_shannon
from headwatch.drift.effects.psi import psi
from headwatch.drift.effects.sizes import FEWEST, EffectSizes, HeadCounts, Size, effect_sizes
from headwatch.drift.effects.wasserstein import wasserstein
from headwatch.errors import IncompatibleHistograms
from headwatch.findings import NamedHead

MIDDLES = slot_middles()
HEAD = NamedHead(3, 1, "lookback", "support", "decode")


def histogram(values: np.ndarray) -> np.ndarray:
    return np.bincount(bucket_index(values.astype(np.float32)) + 1, minlength=BUCKETS + 1)


def draw(requests: int, mean: float = 0.3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((requests, seed)).normal(mean, 0.05, requests).clip(0.01, 0.99)


def sizes(before: np.ndarray, since: np.ndarray) -> EffectSizes:
    counts = HeadCounts(HEAD, histogram(before), histogram(since), float(before.sum()), float(since.sum()))
    return effect_sizes([counts], MIDDLES)[0]


def each(found: EffectSizes) -> dict[str, Size]:
    given = {name: getattr(found, name) for name in ("wasserstein", "jensen_shannon", "psi")}
    assert all(isinstance(size, Size) for size in given.values())
    return given


def test_a_head_that_moved_is_further_off_than_chance_takes_it() -> None:
    before, since = draw(200), draw(60, mean=0.2)
    found = sizes(before, since)
    assert (found.layer, found.head, found.feature, found.route, found.phase) == (3, 1, "lookback", "support", "decode")
    assert (found.requests_before, found.requests_since) == (200, 60)
    assert (found.mean_before, found.mean_since) == (pytest.approx(before.mean()), pytest.approx(since.mean()))
    for name, size in each(found).items():
        assert size.value > 1.5 * size.rarely_by_chance > 1.5 * size.by_chance > 0, name
    assert found.wasserstein.value == pytest.approx(0.1, abs=0.02), "how far it moved, in its own unit"
    assert found.jensen_shannon.value < 1.0


def test_the_values_are_those_of_the_three_distances() -> None:
    before, since = draw(50), draw(30, mean=0.25)
    one, other = histogram(before), histogram(since)
    found = each(sizes(before, since))
    expected = (wasserstein(one, other, MIDDLES), jensen_shannon(one, other), psi(one, other))
    assert [size.value for size in found.values()] == pytest.approx([float(value) for value in expected])


def test_few_requests_pass_the_customary_limit_though_nothing_changed_and_the_answer_shows_that() -> None:
    """PSI of 0.2 is no limit here: chance alone gives many times that, and the value is no larger than chance."""
    found = [each(sizes(draw(30, seed=seed), draw(30, seed=seed + 100))) for seed in range(12)]
    assert min(one["psi"].by_chance for one in found) > 0.2
    for name in found[0]:
        above = sum(one[name].value > one[name].by_chance for one in found)
        rarely = sum(one[name].value > one[name].rarely_by_chance for one in found)
        assert 2 <= above <= 10, f"{name}: about half of what did not change is above the median"
        assert rarely <= 3, name


def test_chance_is_that_of_the_same_requests_dealt_into_sides_of_the_same_sizes() -> None:
    """Held against a permutation of the values themselves."""
    before, since = draw(120), draw(25, mean=0.28)
    rng, pooled = np.random.default_rng(7), np.concatenate([before, since])
    dealt = [rng.permutation(pooled) for _ in range(1000)]
    distances = np.array([float(psi(histogram(one[:120]), histogram(one[120:]))) for one in dealt])
    found = each(sizes(before, since))["psi"]
    assert found.by_chance == pytest.approx(np.median(distances), rel=0.1)
    assert found.rarely_by_chance == pytest.approx(np.quantile(distances, 0.95), rel=0.1)


def test_chance_gives_less_the_more_requests_there_are() -> None:
    few, many = each(sizes(draw(40), draw(40, seed=1))), each(sizes(draw(4000), draw(4000, seed=1)))
    assert all(many[name].by_chance < few[name].by_chance / 3 for name in few)


@pytest.mark.parametrize(("before", "since"), [(FEWEST - 1, 500), (500, FEWEST - 1)])
def test_where_a_side_has_too_few_requests_there_are_means_and_no_sizes(before: int, since: int) -> None:
    found = sizes(draw(before), draw(since))
    assert (found.wasserstein, found.jensen_shannon, found.psi) == (None, None, None)
    assert (found.requests_before, found.requests_since) == (before, since)
    assert found.mean_before == pytest.approx(0.3, abs=0.05)


def test_just_enough_requests_give_sizes() -> None:
    assert each(sizes(draw(FEWEST), draw(FEWEST)))


def test_a_side_without_requests_has_no_mean() -> None:
    found = sizes(draw(50), draw(0))
    assert (found.requests_since, found.mean_since, found.psi) == (0, None, None)


def test_asked_twice_the_answer_is_the_same_and_it_is_ready_for_json() -> None:
    first, second = (sizes(draw(60), draw(40, mean=0.25)) for _ in range(2))
    assert first == second
    assert msgspec.json.decode(msgspec.json.encode(first), type=EffectSizes) == first


def test_heads_come_back_in_the_order_in_which_they_were_asked_for() -> None:
    nothing = np.zeros(BUCKETS + 1, np.int64)
    asked = [HeadCounts(msgspec.structs.replace(HEAD, layer=layer), nothing, nothing, 0.0, 0.0) for layer in (5, 2, 9)]
    assert [one.layer for one in effect_sizes(asked, MIDDLES)] == [5, 2, 9]


def test_counts_of_other_buckets_are_refused() -> None:
    wrong = np.ones(BUCKETS, np.int64)
    with pytest.raises(IncompatibleHistograms, match="128 buckets"):
        effect_sizes([HeadCounts(HEAD, wrong, wrong, 0.0, 0.0)], MIDDLES)
