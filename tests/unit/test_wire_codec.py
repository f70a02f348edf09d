"""Frames survive the wire whole; whatever is no frame, or does not fit itself, is refused with a reason."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.errors import WireError
from headwatch.model import (
    DOCUMENT_KINDS,
    FEATURES,
    SPAN_KINDS,
    Document,
    Frame,
    RequestContext,
    Span,
    StatusFrame,
    SummaryBatch,
    WorkerIdentity,
)
from headwatch.wire import codec, columns

from .frames import HEADS, LAYERS, context, status, summary

ROWS = [(10, {"entropy": 0.5, "lookback": 0.25}, [0.1, 0.2, 0.3, 0.3, 0.1]), (18, {"entropy": 0.4}, [0.2] * 5)]

texts = st.text(max_size=20)
counts = st.integers(0, 2**63 - 1)
count_tables = st.dictionaries(texts, counts, max_size=4)
finite = st.floats(0, 1e9)
workers = st.builds(WorkerIdentity, texts, counts, counts, texts, texts, texts, counts, counts, texts)
spans = st.builds(Span, st.sampled_from(SPAN_KINDS), counts, counts, st.integers(-1, 100), st.integers(0, 100))
documents = st.builds(
    Document, texts, st.sampled_from(DOCUMENT_KINDS), texts, texts, texts,
    st.dictionaries(texts, texts, max_size=3), st.booleans(),
)  # fmt: skip
contexts = st.builds(
    RequestContext, texts, counts, st.lists(spans, max_size=4), st.lists(documents, max_size=3),
    *[texts] * 6, st.lists(texts, max_size=2),
)  # fmt: skip
statuses = st.builds(
    StatusFrame, workers, counts, counts, st.booleans(), texts, count_tables, count_tables,
    st.dictionaries(texts, texts, max_size=4), finite, finite, st.floats(0, 1), counts, texts, texts,
)  # fmt: skip


@st.composite
def batches(draw: st.DrawFn) -> SummaryBatch:
    """Frames that fit themselves: any rows, requests, layers and heads, any float32 in the columns, NaN included."""
    requests = draw(st.lists(contexts, min_size=1, max_size=3))
    layers = draw(st.lists(st.integers(0, 200), max_size=3, unique=True).map(sorted))
    heads = draw(st.integers(1, 3))
    row_request = draw(st.lists(st.integers(0, len(requests) - 1), max_size=4))
    cells = len(layers) * heads
    masses = sum(len(requests[index].spans) + 1 for index in row_request) * cells
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def column(length: int) -> bytes:
        values = rng.random(length, np.float32)
        values[rng.random(length) < 0.2] = np.nan
        return values.astype("<f4").tobytes()

    return SummaryBatch(
        worker=draw(workers),
        sequence=draw(counts),
        time_ns=draw(counts),
        layers=layers,
        heads=heads,
        head_offset=draw(st.integers(0, 64)),
        requests=requests,
        row_request=np.array(row_request, "<i4").tobytes(),
        row_position=np.arange(len(row_request), dtype="<i4").tobytes(),
        features=column(len(row_request) * cells * len(FEATURES)),
        span_mass=column(masses),
        finished=draw(st.lists(texts, max_size=3)),
    )


@given(frame=batches() | statuses)
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
    if seen.span_mass:
        assert b"".join(mass.tobytes() for mass in seen.span_mass) == frame.span_mass


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
    with pytest.raises(WireError, match=rf"wire version {version}; this sidecar reads 1, 2") as refused:
        codec.decode(payload)
    assert refused.value.reason == "version"


def version_1(frame: SummaryBatch | StatusFrame) -> bytes:
    """Return *frame* as a worker of version 1 wrote it: built by hand, without the field that came with version 2."""
    fields = {"type": "summary" if isinstance(frame, SummaryBatch) else "status"}
    fields.update({name: getattr(frame, name) for name in frame.__struct_fields__ if name != "finished"})
    return b"\xa7\x01" + msgspec.msgpack.encode(fields)


def test_a_summary_of_version_1_is_read_with_no_request_finished():
    """During an upgrade a new sidecar reads old workers: rows arrive, and their requests end by idleness."""
    sent = summary(ROWS, finished=["r-1"])
    assert b"finished" not in version_1(sent)
    received = codec.decode(version_1(sent))
    assert received == msgspec.structs.replace(sent, finished=[])


def test_a_status_of_version_1_is_read_unchanged():
    assert codec.decode(version_1(status(7))) == status(7)


def test_a_frame_without_a_field_that_every_version_has_is_malformed():
    fields = {"type": "summary", "sequence": 1}
    with pytest.raises(WireError) as refused:
        codec.decode(b"\xa7\x02" + msgspec.msgpack.encode(fields))
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
        ({"head_offset": -1}, "must not be negative"),
        ({"layers": list(range(LAYERS + 1))}, "features for 2 rows"),
        ({"features": b"\0" * 8}, "2 features for 2 rows"),
        ({"span_mass": b"\0" * 8}, "2 span masses"),
        ({"requests": []}, "does not carry"),
        ({"requests": [context(documents=0)]}, "span masses"),
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
