"""Rows and requests that were sampled unequally: weighted means and histograms are unbiased, unweighted ones are not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from headwatch.aggregate.weights import LARGEST, whole_weight
from headwatch.aggregate.windows import Aggregator
from headwatch.capture.plan.thinning import choose, seed_of, uniform
from headwatch.config import WindowConfig
from headwatch.model import WINDOW_FEATURES, SummaryBatch
from headwatch.wire.columns import view
from headwatch_exporters.layer_bands import band_points
from headwatch_exporters.points import HistogramValue

from .frames import PROMPT, SECOND, context, summary

MASS = [0.2, 0.3, 0.1, 0.1, 0.3]
LOOKBACK = WINDOW_FEATURES.index("lookback")


def weighted(batch: SummaryBatch, weights: list[float]) -> SummaryBatch:
    return msgspec.structs.replace(batch, row_weight=np.array(weights, "<f4").tobytes())


class Stream:
    """Requests of one route: quiet ones that look back much, and those of a spike, which look back little.

    All of a stratum, so that nothing but the weights can tell them apart.  Quiet requests are sampled at a rate of 1 and not
    thinned; in the spike the rate is 0.3, the stride 5 or 12 by turns, and half of the steps run out of money.
    """

    def __init__(self, replica: int) -> None:
        self.random = np.random.default_rng(replica)
        self.replica = replica
        self.aggregator = Aggregator(WindowConfig(seconds=60.0))
        self.population: list[float] = []
        self.sampled: list[float] = []
        self.frames = 0

    def send(self) -> None:
        for number in range(60):
            self._request(number, spike=number >= 15)

    def _request(self, number: int, *, spike: bool) -> None:
        positions = range(PROMPT, PROMPT + int(self.random.integers(10, 40)))
        level = 0.25 if spike else 0.75
        values = [float(np.clip(self.random.normal(level - 0.004 * (p - PROMPT), 0.08), 0.001, 1)) for p in positions]
        self.population += values
        rate = 0.3 if spike else 1.0
        if self.random.random() >= rate:
            return
        name = f"{self.replica}-{number}"
        request = msgspec.structs.replace(context(name), weight=1 / rate)
        numbers = [uniform(seed_of(name), position) for position in positions]
        probability = 1.0 if not spike else 1 / 5 if number % 2 else 1 / 12
        funds = 2.0 if spike and number % 4 < 2 else 1e9
        choice = choose(numbers, [1.0] * len(numbers), probability=probability, funds=funds, limit=99)
        if not choice.kept:
            return
        rows = [(positions[row], {"lookback": values[row]}, MASS) for row in choice.kept]
        self.sampled += [values[row] for row in choice.kept]
        batch = weighted(summary(rows, request=request, sequence=self.frames, time_ns=100 * SECOND), choice.weights)
        self.frames += 1
        self.aggregator.add(batch, view(batch))


@pytest.fixture(scope="module")
def replicas():
    """The window, the truth and the unweighted mean of each of 60 streams."""
    found = []
    for replica in range(60):
        stream = Stream(replica)
        stream.send()
        (window,), _ = stream.aggregator.collect(0, everything=True)
        found.append((window, np.array(stream.population), np.array(stream.sampled)))
    return found


def mean_and_error(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def test_weighted_means_are_unbiased_and_unweighted_ones_are_off(replicas) -> None:
    weighted_bias, plain_bias = [], []
    for window, population, sampled in replicas:
        place = 0, LOOKBACK, 1, 2
        assert window.count[place] == len(sampled), "what was seen is still known"
        weighted_bias.append(window.total[place] / window.weight[place] - population.mean())
        plain_bias.append(sampled.mean() - population.mean())
    bias, error = mean_and_error(weighted_bias)
    assert abs(bias) < 3.5 * error + 0.01, (bias, error)
    plain, plain_error = mean_and_error(plain_bias)
    assert plain > 0.2, "the quiet requests outweigh the spike"
    assert plain > 10 * plain_error


def test_weights_add_up_to_the_rows_that_there_were(replicas) -> None:
    bias, error = mean_and_error(
        [int(window.weight[0, LOOKBACK, 0, 0]) / len(population) - 1 for window, population, _ in replicas]
    )
    assert abs(bias) < 3.5 * error, (bias, error)


def test_histograms_are_unbiased_bucket_by_bucket(replicas) -> None:
    """The share of rows above one half, from the buckets that every exporter sends."""
    weighted_bias, plain_bias = [], []
    for window, population, sampled in replicas:
        truth = (population > 0.5).mean()
        (point,) = (
            point for point in band_points(window, 1) if point.metric.name == "headwatch.attention.lookback"
        )
        value = point.value
        assert isinstance(value, HistogramValue)
        assert value.count == value.zero_count + int(value.buckets.sum()), "as OpenTelemetry wants it"
        above = int(value.buckets[-8:].sum())  # scale 3: eight buckets from one half to 1
        weighted_bias.append(above / value.count - truth)
        plain_bias.append((sampled > 0.5).mean() - truth)
    bias, error = mean_and_error(weighted_bias)
    assert abs(bias) < 3.5 * error + 0.02, (bias, error)
    assert mean_and_error(plain_bias)[0] > 0.3


def test_a_request_s_means_weigh_its_rows() -> None:
    """Two rows at a stride of 1 and one at a stride of 8; the weight of the request itself changes nothing in it."""
    aggregator = Aggregator(WindowConfig(seconds=60.0))
    rows = [(10, {"lookback": 0.2}, MASS), (11, {"lookback": 0.2}, MASS), (18, {"lookback": 0.8}, [0.2, 0.1, 0.4, 0.1, 0.2])]
    batch = summary(rows, request=msgspec.structs.replace(context(), weight=7.0), finished=["r-1"])
    batch = weighted(batch, [1.0, 1.0, 8.0])
    aggregator.add(batch, view(batch))
    _, (record,) = aggregator.collect(200 * SECOND)
    assert record.grounding_ratio == pytest.approx((0.2 + 0.2 + 8 * 0.8) / 10)
    assert record.rows_decode == 3
    assert record.document_share[0] == pytest.approx((2 * 0.75 + 8 * 0.2) / 10)
    assert record.head_means[WINDOW_FEATURES.index("lookback"), 0, 0] == pytest.approx(0.68)


def test_the_draw_that_rounds_is_fair_the_same_everywhere_and_bounded() -> None:
    drawn = [whole_weight(10 / 3, f"r-{number % 50}", number) for number in range(20_000)]
    assert set(drawn) == {3, 4}
    assert np.mean(drawn) == pytest.approx(10 / 3, abs=4 * 0.4714 / np.sqrt(20_000))
    assert drawn[:10] == [whole_weight(10 / 3, f"r-{number % 50}", number) for number in range(10)]
    assert whole_weight(float(np.float32(1 / 0.1)), "r") == 10
    assert whole_weight(0.0, "r") == 1
    assert whole_weight(1e30, "r") == LARGEST
