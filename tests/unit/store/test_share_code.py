"""One byte for a share: laws of the code."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headwatch_exporters.clickhouse.columns.share_code import LARGEST_ERROR, from_code, to_code


@given(st.lists(st.floats(0, 1, width=32), min_size=1))
def test_a_share_comes_back_within_the_stated_error(values: list[float]):
    shares = np.array(values, np.float32)
    error = np.abs(from_code(to_code(shares)) - shares)
    assert (error <= LARGEST_ERROR * 2 * np.sqrt(shares * (1 - shares)) + LARGEST_ERROR**2 + 1e-6).all()


def test_every_code_comes_back_as_itself():
    codes = np.arange(256, dtype=np.uint8)
    assert (to_code(from_code(codes)) == codes).all()


def test_the_ends_are_exact_and_undefined_stays_undefined():
    back = from_code(to_code(np.array([0.0, 1.0, np.nan, -1e-7, 1.0000002], np.float32)))
    assert back[:2].tolist() == back[3:].tolist() == [0.0, 1.0]
    assert np.isnan(back[2])


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_order_is_kept(one: float, other: float):
    low, high = sorted((one, other))
    codes = to_code(np.array([low, high], np.float32))
    assert codes[0] <= codes[1]
