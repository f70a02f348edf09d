"""The columns of detail levels 2 to 4, value masses and weights: each is viewed as it was sent, or refused with a reason."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.config import WireConfig
from headwatch.errors import WireError
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry
from headwatch.model import SummaryBatch
from headwatch.wire import codec, columns
from headwatch.wire.mass_code import RELATIVE_ERROR, SMALLEST, from_code, to_code

from .frames import HEADS, LAYERS, context, detailed, summary
from .wire_strategies import batches

COLUMNS = (
    "row_request", "row_position", "features", "span_mass", "row_weight", "value_mass", "output_norm", "block_profile",
    "top_position", "top_weight", "full_weight",
)  # fmt: skip
TEXTS = (*COLUMNS, "layers", "heads", "head_offset", "detail", "block_tokens", "top_k", "attention", "requests")


@given(frame=batches(st.integers(2, 4)))
def test_every_row_gets_the_values_that_were_sent_for_it(frame: SummaryBatch):
    """Rows differ in length: blocks and full weights go with their position, and nothing is lost in between."""
    seen = columns.view(frame)
    assert seen.detail is not None
    assert b"".join(part.tobytes() for part in seen.detail.block_profile) == frame.block_profile
    assert b"".join(part.tobytes() for part in seen.detail.full_weight) == frame.full_weight
    for position, profile in zip(seen.position.tolist(), seen.detail.block_profile, strict=True):
        assert profile.shape == (-(-(position + 1) // frame.block_tokens), len(frame.layers), frame.heads)
        assert not profile.flags.writeable
    for position, full in zip(seen.position.tolist(), seen.detail.full_weight, strict=False):
        assert full.shape == (position + 1, len(frame.layers), frame.heads)
    if frame.detail >= 3:
        assert seen.detail.top_position is not None
        assert seen.detail.top_position.shape == (len(seen.position), len(frame.layers), frame.heads, frame.top_k)
        assert seen.detail.top_position.tobytes() == frame.top_position
        assert seen.detail.top_weight.tobytes() == frame.top_weight  # type: ignore[union-attr]


@given(
    frame=batches(), name=st.sampled_from(COLUMNS), content=st.binary(max_size=64),
    edit=st.sampled_from(("replace", "append", "cut", "overwrite")),
)  # fmt: skip
def test_bytes_of_any_column_may_be_anything(frame: SummaryBatch, name: str, content: bytes, edit: str):
    """Whatever stands in one column, the frame is viewed or refused; no other error, no warning."""
    before: bytes = getattr(frame, name)
    after = {
        "replace": content, "append": before + content, "cut": before[: len(before) // 2],
        "overwrite": content[: len(before)] + before[len(content) :],
    }[edit]  # fmt: skip
    assert reason(msgspec.structs.replace(frame, **{name: after})) in {"", "shape", "value"}


@given(frame=batches(), name=st.sampled_from(TEXTS), other=st.sampled_from(TEXTS), data=st.data())
def test_numbers_of_a_frame_may_be_anything(frame: SummaryBatch, name: str, other: str, data: st.DataObject):
    numbers = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 4, 5, 255, 2**31, 2**32, 2**63, 2**64 - 1])
    changes: dict[str, Any] = {}
    for field in {name, other}:
        if isinstance(getattr(frame, field), int):
            changes[field] = data.draw(numbers)
    changed = codec.decode(codec.encode(msgspec.structs.replace(frame, **changes)))
    assert isinstance(changed, SummaryBatch)
    assert reason(changed) in {"", "shape", "value"}


def reason(frame: SummaryBatch) -> str:
    """Return why *frame* is refused; empty where it is viewed."""
    try:
        seen = columns.view(frame)
    except WireError as refused:
        return refused.reason
    assert len(seen.position) == len(seen.request) == len(seen.weight) == len(seen.features)
    return ""


def changed(**columns_: Any) -> SummaryBatch:
    return msgspec.structs.replace(detailed(4), **columns_)


def floats(*values: float, dtype: str = "<f4") -> bytes:
    return np.array(values, dtype).tobytes()


CELLS = LAYERS * HEADS
ROWS, MASSES, TOPS, FULL = 2, 2 * 5 * CELLS, 2 * CELLS * 2, (11 + 12) * CELLS
"""Of ``detailed``: rows at 10 and 11, blocks of 4 tokens, two top positions."""


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (changed(detail=5), "detail 5 is none of"),
        (changed(detail=-1), "detail -1 is none of"),
        (changed(detail=3), "carries full_weight, which comes with 4"),
        (changed(detail=1), "a frame of detail 1 carries block_tokens"),
        (changed(detail=2), "carries top_k, which comes with 3"),
        (changed(attention="cross"), "cross attention have no detail"),
        (changed(block_tokens=0), "blocks of 0 tokens"),
        (changed(block_tokens=2**40), "blocks of"),
        (changed(block_tokens=3), "values of block_profile, but its rows need"),
        (changed(block_profile=b""), "0 values of block_profile"),
        (changed(top_k=0), "top_k 0"),
        (changed(top_k=10_000), "top_k 10000"),
        (changed(top_k=3), "values of top_position"),
        (changed(top_weight=b""), "0 values of top_weight"),
        (changed(top_weight=b"\0" * 6), "no whole number of 4-byte"),
        (changed(full_weight=b"\0"), "no whole number of 2-byte"),
        (changed(full_weight=b"\0\0"), "1 values of full_weight"),
        (changed(row_weight=floats(1.0)), "2 rows, but 1 row weights"),
        (changed(value_mass=b""), "0 values of value_mass"),
        (changed(output_norm=b""), "0 output norms"),
        (changed(value_mass=floats(1.0), output_norm=floats(*[1.0] * ROWS * CELLS)), "1 values of value_mass"),
    ],
)
def test_columns_that_are_not_those_of_the_frame_s_level_are_refused(frame: SummaryBatch, message: str):
    with pytest.raises(WireError, match=message) as refused:
        columns.view(frame)
    assert refused.value.reason == "shape"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (changed(row_weight=floats(-1, 1)), "row weight is negative"),
        (changed(row_weight=floats(1, np.inf)), "row weight is negative or not finite"),
        (changed(row_weight=floats(np.nan, 1)), "row weight is negative or not finite"),
        (changed(value_mass=floats(*[1.0] * (MASSES - 1), -0.5)), "value_mass is no amount"),
        (changed(value_mass=floats(*[1.0] * (MASSES - 1), np.inf)), "value_mass is no amount"),
        (changed(output_norm=floats(*[1.0] * (ROWS * CELLS - 1), -1)), "output_norm is no amount"),
        (changed(top_weight=floats(*[0.1] * (TOPS - 1), 1.5)), "top_weight is no share"),
        (changed(top_weight=floats(*[0.1] * (TOPS - 1), -0.1)), "top_weight is no share"),
        (changed(full_weight=floats(*[0.1] * (FULL - 1), 1.5, dtype="<f2")), "full_weight is no share"),
        (changed(full_weight=floats(*[0.1] * (FULL - 1), -0.1, dtype="<f2")), "full_weight is no share"),
        (changed(full_weight=floats(*[0.1] * (FULL - 1), np.inf, dtype="<f2")), "full_weight is no share"),
        (changed(top_position=np.full(TOPS, 11, "<i4").tobytes()), "outside what its row can see"),
        (changed(top_position=np.full(TOPS, -2, "<i4").tobytes()), "outside what its row can see"),
        (changed(requests=[msgspec.structs.replace(context(), weight=float("inf"))]), "stands for inf requests"),
        (changed(requests=[msgspec.structs.replace(context(), weight=-1.0)]), "stands for -1.0 requests"),
        (changed(requests=[msgspec.structs.replace(context(), prompt_tokens=2**31)]), "a prompt of 2147483648 tokens"),
        (changed(requests=[msgspec.structs.replace(context(), prompt_tokens=-1)]), "a prompt of -1 tokens"),
    ],
)
def test_values_that_cannot_be_what_they_claim_are_refused(frame: SummaryBatch, message: str):
    with pytest.raises(WireError, match=message) as refused:
        columns.view(frame)
    assert refused.value.reason == "value"


def test_a_row_may_point_at_itself_and_may_have_no_further_top_position():
    """The first row is at 10, the second at 11; -1 is "none"."""
    places = np.concatenate([np.full(TOPS // 2, 10), np.full(TOPS // 2, -1)]).astype("<i4")
    seen = columns.view(changed(top_position=places.tobytes())).detail
    assert seen is not None
    assert seen.top_position[0].max() == 10  # type: ignore[index]


def test_a_frame_over_the_bound_is_refused_before_it_is_decoded():
    payload = codec.encode(summary([(10, {}, [0.2] * 5)]))
    receiver = Receiver(WireConfig(max_frame_bytes=len(payload) - 1), WorkerRegistry(), lambda *_: pytest.fail("taken"))
    receiver.accept(payload)
    receiver.stop()
    assert receiver.counters == {"rejected.too_large": 1}


@given(mass=st.floats(0, 1, width=32))
def test_a_mass_comes_back_from_its_byte_within_the_stated_error(mass: float):
    found = float(from_code(to_code(np.array([mass], np.float32)))[0])
    if mass < SMALLEST:
        assert found == 0.0
    else:
        assert abs(found - mass) <= (RELATIVE_ERROR + 1e-6) * mass


def test_the_code_of_masses_at_its_ends():
    assert to_code(np.array([0.0, 1.0, 1.01, np.nan, 2.0**-26, 2.0**-25])).tolist() == [0, 255, 255, 0, 0, 5]
    assert 0.035 < RELATIVE_ERROR < 0.036
    codes = np.arange(256, dtype=np.uint8)
    assert to_code(from_code(codes)).tolist() == codes.tolist()
    assert (np.diff(from_code(codes)) > 0).all()
