"""The contest of detectors: everybody is quiet while nothing changes much, and pages on a change that nobody could miss."""

from __future__ import annotations

import numpy as np
import pytest

from headwatch.bench.drift.contest import Watch, delays, false_alarms
from headwatch.bench.drift.pager import Headwatch
from headwatch.bench.drift.peers.cusum import Cusum
from headwatch.bench.drift.peers.page_hinkley import PageHinkley
from headwatch.bench.drift.peers.three_sigma import ThreeSigma
from headwatch.bench.drift.peers.two_samples import Psi, ShareOfHeads
from headwatch.bench.drift.shifts import Shift
from headwatch.bench.drift.streams import FAMILIES, TYPICAL_ROWS, source

WATCH = Watch("independent", baseline=480, replicas=2, heads=64, seed=4)
CONTESTANTS = {
    "headwatch": lambda: Headwatch(1440.0),
    "three sigma": lambda: ThreeSigma(5.0),
    "cusum": lambda: Cusum(14.0),
    "page-hinkley": lambda: PageHinkley(50.0),
    "psi": lambda: Psi(1.5),
    "share of heads": lambda: ShareOfHeads(0.5),
}
EVERYBODY = pytest.mark.parametrize("name", CONTESTANTS)


@EVERYBODY
def test_nobody_pages_much_while_nothing_changes(name) -> None:
    assert false_alarms(WATCH, 300, CONTESTANTS[name]()).sum() <= 1


@EVERYBODY
def test_everybody_pages_on_a_large_change_of_all_heads(name) -> None:
    change = Shift("mean", 3.0, 1.0).applied(WATCH.replicas, WATCH.heads, 5)
    assert (delays(WATCH, 70, 200, change, CONTESTANTS[name]()) <= 120).all()


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


def test_no_change_is_no_delay() -> None:
    nothing = Shift("mean", 0.0, 1.0).applied(WATCH.replicas, WATCH.heads, 5)
    assert np.isinf(delays(WATCH, 10, 100, nothing, ThreeSigma(6.0))).all()


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
