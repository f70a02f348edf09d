"""Frames survive the wire whole; whatever is no frame, or does not fit itself, is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.errors import WireError
from headwatch.model import FEATURES, Frame, SummaryBatch
from headwatch.wire import codec, columns

from .frames import HEADS, LAYERS, SECOND, context, status, summary
from .wire_strategies import batches, statuses, text_frames

GOLDEN = Path(__file__).with_name("golden")
ROWS = [(10, {"entropy": 0.5, "lookback": 0.25}, [0.1, 0.2, 0.3, 0.3, 0.1]), (18, {"entropy": 0.4}, [0.2] * 5)]

@given(frame=batches() | statuses | text_frames)
def test_a_frame_comes_back_as_it_was_sent(frame: Frame):
    """Nothing that a frame carries is lost or changed, to the last bit of every float."""
    assert codec.decode(codec.encode(frame)) == frame
    assert codec.decode(memoryview(codec.encode(frame))) == frame


@given(frame=batches())
def test_the_columns_of_a_frame_that_fits_itself_can_be_viewed(frame: SummaryBatch):
    """Every array has the shape that the frame promises, and shares the frame's bytes."""
    seen = columns.view(frame)
    rows = len(frame.row_request) // 4
    assert seen.features.shape == (rows, len(frame.layers), frame.heads, len(FEATURES))
    assert seen.features.tobytes() == frame.features
    assert not seen.features.flags.writeable
    assert seen.weight.shape == (rows,)
    if seen.span_mass:
        assert b"".join(mass.tobytes() for mass in seen.span_mass) == frame.span_mass
    assert b"".join(mass.tobytes() for mass in seen.value_mass) == frame.value_mass
    assert (seen.output_norm is None) == (not frame.value_mass and not frame.output_norm)
    assert (seen.detail is None) == (frame.detail < 2)


@given(payload=st.binary(max_size=200))
def test_random_bytes_are_refused_and_never_crash(payload: bytes):
    with pytest.raises(WireError):
        codec.decode(payload)


@given(version=st.sampled_from(codec.READABLE), payload=st.binary(max_size=200))
def test_random_bytes_under_a_right_header_are_malformed(version: int, payload: bytes):
    with pytest.raises(WireError) as refused:
        codec.decode(bytes((codec.MAGIC, version)) + payload)
    assert refused.value.reason == "malformed"


@given(frame=batches(), data=st.data())
def test_a_frame_cut_short_anywhere_is_refused(frame: SummaryBatch, data: st.DataObject):
    payload = codec.encode(frame)
    with pytest.raises(WireError):
        codec.decode(payload[: data.draw(st.integers(0, len(payload) - 1))])


@pytest.mark.parametrize("version", sorted(set(range(256)) - set(codec.READABLE)))
def test_a_version_that_is_not_read_is_named_in_the_refusal(version: int):
    payload = bytes((codec.MAGIC, version)) + codec.encode(status())[2:]
    with pytest.raises(WireError, match=rf"wire version {version}; this sidecar reads 2, 3") as refused:
        codec.decode(payload)
    assert refused.value.reason == "version"


def test_a_summary_of_version_2_is_read_with_weights_of_1_and_no_detail():
    """During an upgrade a new sidecar reads old workers.  The bytes are what a worker of version 2 wrote."""
    payload = (GOLDEN / "summary.v2.frame").read_bytes()
    assert payload[:2] == b"\xa7\x02"
    assert codec.decode(payload) == summary(ROWS, sequence=3, finished=["r-0"])
    seen = columns.view(codec.decode(payload))
    assert seen.weight.tolist() == [1.0, 1.0]
    assert (seen.value_mass, seen.output_norm, seen.detail) == ((), None, None)
    assert seen.features[0, 0, 0, FEATURES.index("lookback")] == 0.25
    assert seen.position.tolist() == [10, 18]


def test_a_status_of_version_2_is_read_without_kernel_budget_and_control():
    frame = codec.decode((GOLDEN / "status.v2.frame").read_bytes())
    assert frame == status(7, 5 * SECOND)
    assert (frame.kernel, frame.budget_stride, frame.detail, frame.control_epoch) == ("", 1, 1, 0)


def test_what_is_written_now_says_that_it_is_version_3():
    """A sidecar of the version before refuses it by name instead of reading half of it."""
    assert codec.encode(status())[:2] == b"\xa7\x03"


def test_a_frame_without_a_field_that_every_version_has_is_malformed():
    fields = {"type": "summary", "sequence": 1}
    with pytest.raises(WireError) as refused:
        codec.decode(b"\xa7\x03" + msgspec.msgpack.encode(fields))
    assert refused.value.reason == "malformed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row_position": b"\0" * 4}, "2 row requests, but 1 row positions"),
        ({"row_request": b"\0" * 7}, "no whole number"),
        ({"row_request": np.array([0, 1], "<i4").tobytes()}, "does not carry"),
        ({"row_request": np.array([0, -1], "<i4").tobytes()}, "does not carry"),
        ({"row_position": np.array([4, -4], "<i4").tobytes()}, "negative position"),
        ({"heads": HEADS + 1}, "features for 2 rows"),
        ({"heads": -1}, "must not be negative"),
        ({"heads": 2**62, "row_request": b"", "row_position": b""}, "nor heads over"),
        ({"head_offset": -1}, "must not be negative"),
        ({"layers": list(range(LAYERS + 1))}, "features for 2 rows"),
        ({"features": b"\0" * 8}, "2 features for 2 rows"),
        ({"span_mass": b"\0" * 8}, "2 values of span_mass"),
        ({"requests": []}, "does not carry"),
        ({"requests": [context(documents=0)]}, "values of span_mass"),
    ],
)
def test_columns_that_do_not_fit_each_other_are_refused(changes: dict[str, object], message: str):
    """A frame from outside may say anything of its shape; none of it reaches an index unchecked."""
    with pytest.raises(WireError, match=message) as refused:
        columns.view(msgspec.structs.replace(summary(ROWS), **changes))
    assert refused.value.reason == "shape"


def test_span_masses_may_be_left_out_altogether():
    """Detail 0 sends features alone."""
    assert columns.view(msgspec.structs.replace(summary(ROWS), span_mass=b"")).span_mass == ()
