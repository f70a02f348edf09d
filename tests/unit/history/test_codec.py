"""A window comes back from its bytes with everything it carried."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headwatch.errors import HistoryError
from headwatch.history.codec import VERSION, decode, encode, rounded
from headwatch.observed import ObservedWindow, StratumWindow

from .windows import SCOPE, STRATUM, full_window, same


def test_everything_comes_back() -> None:
    assert same(decode(encode(full_window())), full_window())


def test_the_window_that_is_tested_with_fills_every_field() -> None:
    """A field that is added to the noun and forgotten in the codec must not go unnoticed."""
    window = full_window()
    assert all(getattr(window, field.name) for field in dataclasses.fields(ObservedWindow))
    assert all(getattr(key, field.name) for key in (STRATUM, SCOPE) for field in dataclasses.fields(key))


def test_an_empty_window_comes_back() -> None:
    assert same(decode(encode(ObservedWindow(3, 1, 2))), ObservedWindow(3, 1, 2))


@given(arrays(np.float64, (2, 6), elements=st.floats(-1e6, 1e6, width=32) | st.just(float("nan"))))
def test_means_keep_sixteen_bits_and_are_rounded_once(values) -> None:
    """Rounded values come back to the last bit, and rounding again changes nothing."""
    once = rounded(values)
    assert np.array_equal(rounded(once), once, equal_nan=True)
    known = np.isfinite(values)
    assert np.array_equal(np.isnan(once), ~known)
    assert np.all(np.abs(once[known] - values[known]) <= 1.6e-5 * np.abs(values[known]) + 1e-38)
    window = ObservedWindow(1, 0, 1, {STRATUM: StratumWindow(once, np.ones(2), np.zeros(0), 3)})
    assert same(decode(encode(window)), window)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_bytes_that_were_cut_off_are_refused(share) -> None:
    kept = encode(full_window())
    with pytest.raises(HistoryError):
        decode(kept[: int(len(kept) * share)])


@pytest.mark.parametrize("kept", [b"", b"\x01", b"\x01not zlib", bytes([VERSION + 1]) + b"later", b"\x00"])
def test_other_bytes_are_refused(kept) -> None:
    with pytest.raises(HistoryError):
        decode(kept)


def test_a_whole_model_takes_little() -> None:
    """Half of what float32 takes and a bit: 5,120 heads x 6 features."""
    random = np.random.default_rng(1)
    values = rounded(0.5 + 0.1 * random.standard_normal((6, 5120)))
    kept = encode(ObservedWindow(1, 0, 1, {STRATUM: StratumWindow(values, np.ones(6), np.zeros(0), 32)}))
    assert len(kept) < 0.65 * 4 * values.size
