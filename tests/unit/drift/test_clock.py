"""One clock: weights that are fixed beforehand and sum to one, whoever comes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.drift import naming
from headwatch.drift.clock import DEFAULT_FAMILIES, RESERVE, combined, newcomer_weight, stratum_evidence


def test_the_weights_of_the_families_sum_to_one() -> None:
    assert sum(DEFAULT_FAMILIES.values()) == pytest.approx(1.0)


@given(st.integers(0, 200))
def test_newcomers_never_take_more_than_the_reserve(strata: int) -> None:
    assert sum(newcomer_weight(order) for order in range(1, strata + 1)) <= RESERVE


def test_families_that_are_missing_leave_their_weight_to_the_others() -> None:
    evidence = {"heads.mean": np.array([6.0, 6.0]), "level.1": np.array([6.0, 6.0])}
    assert stratum_evidence(evidence, DEFAULT_FAMILIES) == pytest.approx(6.0)


def test_features_count_by_their_weight() -> None:
    evidence = {"heads.mean": np.array([10.0, 0.0])}
    assert stratum_evidence(evidence, DEFAULT_FAMILIES, np.array([0.9, 0.1])) == pytest.approx(9.0)


def test_the_clock_adds_strata_by_weight() -> None:
    assert combined({"a": 10.0, "b": 100.0}, {"a": 0.75, "b": 0.25}) == pytest.approx(32.5)


def test_heads_are_named_by_evidence() -> None:
    assert naming.ranked(np.array([1.0, 9.0, 9.0, 3.0]), 3).tolist() == [1, 2, 3]


def test_the_confident_set_is_empty_where_no_head_stands_out_and_holds_those_that_do() -> None:
    evidence = np.full(100, 50.0)
    assert naming.confident(evidence, 0.01).tolist() == []
    evidence[[7, 11]] = [9000.0, 6000.0]  # 100 / (0.01 x 2) = 5000 is enough for the second
    assert naming.confident(evidence, 0.01).tolist() == [7, 11]
