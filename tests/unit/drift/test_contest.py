"""The contest of detectors: everybody is quiet while nothing changes much, and pages on a change that nobody could miss."""

from __future__ import annotations

import numpy as np
import pytest

from headwatch.bench.drift import cells
from headwatch.bench.drift.contest import Watch, closeness, delays, false_alarms
from headwatch.bench.drift.fleet import Newcomers, TenStrata
from headwatch.bench.drift.nulls import cell, upper_limit
from headwatch.bench.drift.pager import Headwatch
from headwatch.bench.drift.peers import PEERS
from headwatch.bench.drift.shifts import Shift
from headwatch.bench.drift.streams import FAMILIES, TYPICAL_ROWS, source
from headwatch.bench.drift.tuning import rate, smallest_limit

WATCH = Watch("independent", baseline=480, replicas=2, heads=64, seed=4)
LIMITS = {
    "three sigma": 5.0, "CUSUM": 14.0, "Page-Hinkley": 110.0, "ADWIN": 8.0, "KSWIN": 15.0, "PSI": 1.0, "Evidently": 0.4,
    "NannyML": 12.0,
}
CONTESTANTS = {
    "headwatch": lambda: Headwatch(1440.0),
    **{name: (lambda name=name: PEERS[name](LIMITS[name])) for name in PEERS},
}
EVERYBODY = pytest.mark.parametrize("name", CONTESTANTS)


@EVERYBODY
def test_nobody_pages_much_while_nothing_changes(name) -> None:
    assert false_alarms([WATCH], 300, CONTESTANTS[name]())[0].sum() <= 1


@EVERYBODY
def test_everybody_pages_on_a_large_change_of_all_heads(name) -> None:
    change = Shift("mean", 3.0, 1.0).applied(WATCH.replicas, WATCH.heads, 5)
    (found,) = delays(WATCH, 70, 200, [change], CONTESTANTS[name]())
    assert (found <= 120).all()


@EVERYBODY
def test_a_page_starts_the_detector_again(name) -> None:
    contestant = CONTESTANTS[name]()
    stream = source("independent", 2, 64, np.random.default_rng(1))
    contestant.learn(stream.take(0, 480))
    rows = np.full(2, TYPICAL_ROWS)
    for number, values in enumerate(stream.take(480, 60).values, 480):
        contestant.step(number, values, rows)
    for number, values in enumerate(stream.take(540, 120).values + 3.0, 540):
        if (contestant.step(number, values, rows) >= 1.0).all():
            break
    else:
        pytest.fail("it never paged")
    contestant.reset(np.array([True, True]))
    after = [contestant.step(number, values, rows) for number, values in enumerate(stream.take(660, 5).values, 660)]
    assert np.max(after) < 1.0


def test_families_side_by_side_are_each_what_they_are_alone() -> None:
    watches = [Watch(family, 480, 2, 64, 6) for family in ("independent", "changing sampling rate")]
    together = false_alarms(watches, 200, PEERS["three sigma"](4.0))
    for watch, pages in zip(watches, together, strict=True):
        np.testing.assert_array_equal(pages, false_alarms([watch], 200, PEERS["three sigma"](4.0))[0])


def test_no_change_is_no_delay() -> None:
    nothing = Shift("mean", 0.0, 1.0).applied(WATCH.replicas, WATCH.heads, 5)
    assert np.isinf(delays(WATCH, 10, 100, [nothing], PEERS["three sigma"](6.0))[0]).all()


def test_each_change_meets_the_detector_as_it_was_before_any() -> None:
    """A copy a change: what one change did to a detector is not seen by the next."""
    change = Shift("mean", 1.0, 1.0).applied(WATCH.replicas, WATCH.heads, 5)
    first, again = delays(WATCH, 30, 100, [change, change], CONTESTANTS["CUSUM"]())
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("kind", ["mean", "ramp"])
def test_a_change_meets_the_share_of_heads_that_it_says(kind) -> None:
    moved = Shift(kind, 0.5, 0.05).applied(3, 200, 1)(10_000, np.zeros((3, 200)))
    assert (np.abs(moved) == 0.5).sum(axis=1).tolist() == [10, 10, 10]
    assert 0 < (moved > 0).sum() < 30, "up and down"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_null_family_has_mean_zero_and_variance_one(family) -> None:
    block = source(family, 4, 64, np.random.default_rng(7)).take(0, 1440)
    typical = np.isclose(block.rows, TYPICAL_ROWS) if family not in ("changing sampling rate", "few rows") else block.rows > 0
    values = block.values[typical]
    assert np.nanmean(values) == pytest.approx(0.0, abs=0.25)
    weight = np.minimum(block.rows[typical] / TYPICAL_ROWS, 4.0)[:, None] if family == "few rows" else 1.0
    assert np.nanmean(values**2 * weight) == pytest.approx(1.0 if family != "daily cycle" else 1.125, rel=0.5)


def test_a_limit_is_the_smallest_that_pages_no_more_than_allowed() -> None:
    passed = closeness(WATCH, 600, PEERS["three sigma"](1.0))
    limit = smallest_limit(passed, 0.01)
    assert rate(passed, limit) <= 0.01 < rate(passed, limit - 0.05)


@pytest.mark.parametrize("clock", [TenStrata, Newcomers])
def test_many_strata_on_one_clock_page_no_more_than_one(clock) -> None:
    assert clock(1, 8, 1440.0, 3, baseline=240).watch(60).sum() <= 1


def test_the_upper_limit_is_that_of_poisson_where_replicas_agree() -> None:
    """Garwood: 3 pages seen, at most 8.77 expected; 0 seen, at most 3.69."""
    assert upper_limit(np.array([1, 1, 1])) == pytest.approx(8.767, abs=0.01)
    assert upper_limit(np.array([0, 0])) == pytest.approx(3.689, abs=0.01)
    assert upper_limit(np.array([3, 0, 0])) > 9.0, "replicas that differ say less"


def test_a_ratio_is_pages_over_those_promised() -> None:
    found = cell("independent", "1 day", 64, 64, 2.0, np.array([1, 2]))
    assert (found.expected, found.pages, found.ratio) == (4.0, 3, 0.75)


@pytest.mark.parametrize(
    ("own", "peer", "slower", "ratio"),
    [(10.0, 8.0, False, 1.25), (11.0, 8.0, True, 1.375), (None, 8.0, True, None), (10.0, None, False, None)],
)
def test_a_cell_is_slower_beyond_a_quarter_or_where_only_a_peer_found_it(own, peer, slower, ratio) -> None:
    judged = cells.judge("independent", Shift("mean", 1.0, 0.3), own, {"CUSUM": peer, "ADWIN": None})
    assert (judged.slower, judged.ratio) == (slower, ratio)
