"""State as bytes: NumPy's own archive, whatever the arrays are, and the same bytes for the same arrays."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from headwatch.drift.saved import from_bytes, to_bytes

arrays = arrays_of.arrays(
    st.sampled_from(["<f8", ">f8", "<f4", "<i8", "<u2", "u1", "?", "<U3"]),
    arrays_of.array_shapes(min_dims=0, min_side=0, max_side=4),
)
states = st.dictionaries(st.text("abé.0", min_size=1, max_size=12), arrays, max_size=6)


def same(found: dict, expected: dict) -> bool:
    return list(found) == list(expected) and all(
        found[name].dtype == value.dtype and found[name].shape == value.shape and found[name].tobytes() == value.tobytes()
        for name, value in expected.items()
    )


@given(states)
def test_what_was_saved_comes_back_and_numpy_reads_it_by_itself(state):
    saved = to_bytes(state)
    assert same(from_bytes(saved), state)
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{name}.npy" for name in state]
    assert to_bytes(state) == saved


@given(states)
def test_what_numpy_itself_has_written_is_read(state):
    """As every state was that an earlier version has kept."""
    written = io.BytesIO()
    np.savez(written, allow_pickle=False, **state)
    assert same(from_bytes(written.getvalue()), state)


def test_an_array_that_lies_otherwise_in_memory_is_the_same_one():
    values = np.arange(24.0).reshape(4, 6)
    for value in (values.T, values[:, ::2], np.asfortranarray(values), np.broadcast_to(values[0], (3, 6))):
        found = from_bytes(to_bytes({"a": value}))["a"]
        np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("dtype", ["O", "<f8,<i4"])
def test_what_needs_a_pickle_or_has_fields_is_refused(dtype):
    with pytest.raises(ValueError, match="cannot be kept"):
        to_bytes({"a": np.zeros(2, dtype)})
