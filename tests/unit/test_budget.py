"""The budget: what capture may cost is held, spikes are answered before they are paid for, and weights stay right."""

from __future__ import annotations

import importlib
import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.capture.plan.budget import CALM_SECONDS, STRIDES, WINDOW_SECONDS, Budget
from headwatch.capture.plan.cost import CostModel
from headwatch.capture.plan.thinning import choose, seed_of, uniform

LAYERS, STEP_SECONDS = 30, 0.05


@pytest.fixture(scope="module")
def benchmark():
    """The benchmark of the budget, which is also the proof of it."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    try:
        return importlib.import_module("benchmarks.budget")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def traces(benchmark):
    seconds = (960, 960, 340)  # the last one takes 120 steps a second: one spike is enough
    return [benchmark.simulate(item, seconds=end) for item, end in zip(benchmark.SCENARIOS, seconds, strict=True)]


@pytest.mark.parametrize("number", range(3))
def test_capture_stays_within_its_share_in_a_trace_with_tenfold_spikes(benchmark, traces, number: int):
    """At least 99 % of all stretches of 10 seconds, from the first step on, self-check included; none by more than a half."""
    figures = benchmark.summary(traces[number])
    assert figures["share_without_budget"] > 2 * benchmark.SHARE, "the trace must need a budget"
    assert figures["windows_within"] >= 0.99
    assert figures["worst_window_share"] <= 1.5 * benchmark.SHARE
    assert figures["mean_share"] >= 0.3 * benchmark.SHARE, "what may be spent is used"


def test_the_kept_rows_of_a_trace_stand_for_those_that_were_wanted(benchmark, traces):
    """Of rows for which the purse was empty nobody speaks: they are the few percent that are missing."""
    trace = traces[1]
    uncovered = benchmark.summary(trace)["uncovered"]
    assert uncovered < 0.08
    assert sum(trace.weight) / sum(trace.wanted) == pytest.approx(1 - uncovered, abs=0.08)


def drive(budget: Budget, rows: int, seconds: float, *, tokens: int = 600, cost: float = 0.002, exempt: bool = False):
    """Run steps with *rows* candidates that cost *cost* each; return kept, spent and stride by step."""
    kept, spent, strides = [], [], []
    for step in range(int(seconds / STEP_SECONDS)):
        numbers = [uniform(seed_of(f"r{row}"), step + 1000 * rows) for row in range(rows)]
        admission = budget.admit([tokens] * rows, numbers, [exempt] * rows, 4096)
        paid = len(admission.kept) * cost / admission.layer_stride
        budget.settle(STEP_SECONDS + paid, paid)
        kept.append(len(admission.kept))
        spent.append(paid)
        strides.append(budget.stride)
    return kept, spent, strides


def test_a_light_load_is_not_thinned_at_all():
    """0.1 ms of 50: a fifth of the share of 1 %."""
    budget = Budget(0.01, LAYERS)
    drive(budget, 1, 30, cost=1e-4)
    kept, _, strides = drive(budget, 1, 30, cost=1e-4)
    assert kept == [1] * len(kept)
    assert set(strides) == {1}


def test_the_first_step_of_a_spike_is_thinned_before_it_is_paid_for():
    budget = Budget(0.01, LAYERS)
    drive(budget, 1, 60, cost=2e-4)
    kept, spent, _ = drive(budget, 1000, STEP_SECONDS, cost=2e-4)
    assert kept[0] < 150, "200 ms were asked for in one step"
    assert spent[0] <= 0.2 * 0.01 * WINDOW_SECONDS * 1.3


def test_the_stride_rises_within_seconds_falls_after_calm_and_does_not_swing():
    budget = Budget(0.01, LAYERS)
    drive(budget, 2, 120)
    _, _, before = drive(budget, 2, 60)
    _, _, spike = drive(budget, 20, 60)
    assert spike[int(6 / STEP_SECONDS)] >= 5 * max(before)
    _, _, after = drive(budget, 2, 180)
    assert after[-1] <= 1.5 * max(before), "it recovers"
    settled = spike[len(spike) // 2 :]
    assert len(set(settled)) <= 2, f"a steady load has a steady stride: {settled}"
    falls = [step for step, (one, other) in enumerate(pairwise(after)) if other < one]
    assert all(b - a >= CALM_SECONDS / STEP_SECONDS * 0.9 for a, b in pairwise(falls))


def test_a_share_of_one_is_no_budget():
    budget = Budget(1.0, LAYERS)
    kept, _, strides = drive(budget, 50, 1, cost=0.01)
    assert set(kept) == {50}
    assert set(strides) == {1}


def test_a_row_that_is_too_dear_is_summarised_in_some_layers_only():
    """100 ms a row, of a window's 100 ms: a sixteenth of the layers, sixteen times the weight."""
    budget = Budget(0.01, LAYERS)
    budget.cost.row_seconds, budget.cost.kilotoken_seconds = 0.1 / LAYERS, 1e-9
    admission = budget.admit([30_000], [0.2], [False], 64)
    assert admission.kept == [0]
    assert admission.layer_stride == 16
    assert admission.weights == [16.0]


def test_a_request_that_wants_everything_is_not_thinned_until_it_is_deep_in_debt():
    budget = Budget(0.01, LAYERS)
    kept, spent, _ = drive(budget, 1, 60, cost=0.005, exempt=True)
    first = kept.index(0)
    assert kept[:first] == [1] * first
    assert first * 0.005 >= 0.5 * 0.01 * WINDOW_SECONDS, "it may spend half a window's budget in advance"
    assert sum(spent) <= 0.01 * 60 + 0.5 * 0.01 * WINDOW_SECONDS, "but over a minute no more than its share and that"


def test_what_wants_everything_is_paid_by_the_rows_that_may_be_thinned():
    budget = Budget(0.01, LAYERS)
    budget.purse_seconds = 0.004
    budget.cost.row_seconds, budget.cost.kilotoken_seconds = 0.005 / LAYERS, 1e-9
    admission = budget.admit([600] * 3, [0.1, 0.9, 0.01], [False, True, False], 64)
    assert admission.kept == [1], "the exempt row took all there was"
    assert admission.weights == [1.0]


def test_one_wild_cost_pauses_capture_for_seconds_and_not_for_minutes():
    budget = Budget(0.01, LAYERS)
    drive(budget, 1, 30, cost=1e-4)
    budget.admit([600], [0.5], [False], 64)
    budget.settle(30.0, 30.0, ordinary=False)
    kept, _, _ = drive(budget, 1, 30, cost=1e-4)
    assert 5 <= kept.index(1) * STEP_SECONDS <= 15
    assert sum(kept[-100:]) >= 90, "afterwards all is as before"


def test_a_step_with_an_empty_purse_is_passed_over_and_says_nothing_of_the_demand():
    budget = Budget(0.01, LAYERS)
    kept, _, strides = drive(budget, 8, 60.0)
    budget.settle(STEP_SECONDS, 10.0)
    passed = 0
    while budget.passes_over():
        budget.settle(STEP_SECONDS, 20e-6)
        passed += 1
    assert 5.0 <= passed * STEP_SECONDS <= 20.0, "until the debt is paid"
    assert budget.stride >= strides[-1] > 1, "the stride is still what the demand needs"
    assert sum(kept) > 0
    assert not Budget(1.0, LAYERS).passes_over()


@given(st.lists(st.floats(0, 0.99), min_size=1, max_size=12, unique=True), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_what_is_kept_at_a_lower_probability_is_kept_at_a_higher_one(numbers, one, other):
    costs = [0.0] * len(numbers)
    fewer, more = (
        choose(numbers, costs, probability=probability, funds=1.0, limit=99) for probability in sorted((one, other))
    )
    assert set(fewer.kept) <= set(more.kept)


@pytest.mark.parametrize(("probability", "funds", "limit"), [(0.5, 99.0, 99), (1.0, 4.0, 99), (0.8, 5.0, 99), (1.0, 99.0, 3),
                                                             (0.9, 6.0, 3), (0.02, 0.5, 99)])
def test_weighted_sums_are_unbiased_though_money_and_room_depend_on_the_draw(probability, funds, limit):
    """Ten rows of unlike cost, 15,000 draws: each row's own weight must average 1, the dear ones' too."""
    costs = [1.0, 2.0, 0.5, 3.0, 1.0, 0.1, 4.0, 1.0, 0.7, 2.0]
    random, draws = np.random.default_rng(3), 15_000
    total = np.zeros((2, len(costs)))
    for _ in range(draws):
        choice = choose(random.random(len(costs)).tolist(), costs, probability=probability, funds=funds, limit=limit)
        found = np.zeros(len(costs))
        found[choice.kept] = choice.weights
        total += found, found**2
        assert len(choice.kept) <= limit
        spent = [costs[row] for row in choice.kept]
        assert sum(spent[:-1]) < funds, "only the last row may overdraw"
    mean = total[0] / draws
    error = np.sqrt(total[1] / draws - mean**2) / math.sqrt(draws)
    assert (np.abs(mean - 1.0) < 4.5 * error + 1e-9).all(), (mean, error)


def test_nothing_is_kept_without_money_or_room():
    assert choose([0.1], [1.0], probability=1.0, funds=0.0, limit=9).kept == []
    assert choose([0.1], [1.0], probability=1.0, funds=9.0, limit=0).kept == []


def test_the_numbers_are_uniform_and_the_same_in_every_run():
    numbers = [uniform(seed_of("cmpl-1-0"), position) for position in range(20_000)]
    assert 0.0 <= min(numbers) < max(numbers) < 1.0
    counts = np.histogram(numbers, 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8, "chi square, 19 degrees of freedom, 0.1 %"
    assert numbers[0] == pytest.approx(0.2896574, abs=1e-7)


def test_the_model_tells_rows_from_tokens():
    model, random = CostModel(), np.random.default_rng(0)
    for _ in range(400):
        tokens = int(random.choice([200, 8000]))
        seconds = LAYERS * (20e-6 + 90e-6 * tokens / 1000) * random.lognormal(-0.02, 0.2)
        model.learn(1, tokens, LAYERS, seconds)
    assert model.row(200) == pytest.approx(38e-6, rel=0.25)
    assert model.row(8000) == pytest.approx(740e-6, rel=0.25)


def test_a_single_wild_cost_hardly_moves_the_model():
    model = CostModel()
    for _ in range(100):
        model.learn(1, 600, LAYERS, LAYERS * 80e-6)
    model.learn(1, 600, LAYERS, 5.0)
    assert model.row(600) < 1.5 * 80e-6


def test_strides_are_whole_and_ascend():
    assert STRIDES[:8] == (1, 2, 3, 4, 6, 8, 12, 16)
    assert all(a < b <= 2 * a for a, b in pairwise(STRIDES))
