"""The control message on the wire: it says what it said, or it is refused with a reason; nothing in between."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.config import RouteConfig
from headwatch.errors import WireError
from headwatch.wire.control import MAX_MESSAGE_BYTES, ControlMessage, Raise, Target, decode, encode

SECRET = b"0123456789abcdef" * 2
MESSAGE = ControlMessage(
    7, "life-one", 3, 1_000, since=5, enabled=False, everything=RouteConfig(0.5, 2, 4, 1),
    routes={"support": RouteConfig(detail=0)}, expires_seconds=60.0,
    raises=[Raise(6, Target("m", "hr", "lora", 512, 1024), RouteConfig(detail=1), 30.0)],
)  # fmt: skip

adjustments = st.builds(
    RouteConfig,
    st.none() | st.floats(0.0, 1.0),
    st.none() | st.integers(1, 10**6),
    st.none() | st.integers(0, 10**6),
    st.none() | st.integers(0, 1),
)
messages = st.builds(
    ControlMessage,
    st.integers(1, 2**53),
    st.text(min_size=8, max_size=64),
    st.integers(0, 2**53),
    st.integers(0, 2**62),
    since=st.integers(0, 2**53),
    enabled=st.booleans(),
    everything=adjustments,
    routes=st.dictionaries(st.text(max_size=128), adjustments, max_size=5),
    expires_seconds=st.none() | st.floats(0.0, 604_800.0),
    raises=st.lists(
        st.builds(
            Raise,
            st.integers(1, 2**53),
            st.builds(Target, st.none() | st.text(max_size=9), st.none() | st.text(max_size=9), context_to=st.integers(0, 9)),
            adjustments,
            st.floats(0.0, 604_800.0),
        ),
        max_size=3,
    ),
)


def reason_of(payload: bytes, secret: bytes = SECRET) -> str:
    with pytest.raises(WireError) as caught:
        decode(payload, secret)
    return caught.value.reason


def signed(body: bytes, version: int = 1) -> bytes:
    import hashlib
    import hmac

    header = bytes((0xA8, version))
    return header + hmac.new(SECRET, header + body, hashlib.sha256).digest() + body


@given(messages)
def test_a_message_arrives_as_it_was_sent(message: ControlMessage):
    assert decode(encode(message, SECRET), SECRET) == message


@given(st.data())
def test_one_changed_bit_anywhere_is_refused(data: st.DataObject):
    payload = bytearray(encode(MESSAGE, SECRET))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert reason_of(bytes(payload)) in {"magic", "version", "mac"}


@given(st.integers(0, 500))
def test_a_message_cut_short_is_refused(length: int):
    payload = encode(MESSAGE, SECRET)
    assert reason_of(payload[: min(length, len(payload) - 1)]) in {"magic", "mac"}


@given(st.binary(max_size=300), st.sampled_from([b"", b"\xa8", b"\xa8\x01", b"\xa8\x01" + bytes(32), b"\xa7\x03"]))
def test_whatever_arrives_is_refused_with_a_reason(rest: bytes, start: bytes):
    assert reason_of(start + rest) in {"magic", "version", "mac"}


def test_another_secret_is_refused():
    assert reason_of(encode(MESSAGE, b"another secret, of the same size")) == "mac"


@given(st.binary(max_size=200))
def test_what_is_signed_and_no_message_is_refused_too(body: bytes):
    assert reason_of(signed(body)) == "malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 0},
        {"epoch": -1},
        {"epoch": 2**60},
        {"start_id": ""},
        {"sequence": -1},
        {"expires_seconds": -1.0},
        {"expires_seconds": 1e12},
        {"everything": {"sample_rate": 1.5}},
        {"everything": {"step_stride": 0}},
        {"everything": {"detail": 99}},
        {"everything": {"sample_rat": 0.5}},
        {"routes": {str(number): {} for number in range(257)}},
        {"routes": {"x" * 129: {}}},
        {"raises": [msgspec.to_builtins(MESSAGE.raises[0])] * 65},
        {"enabled": "yes"},
    ],
)
def test_values_out_of_bounds_are_refused_though_they_are_signed(changes: dict[str, object]):
    """A worker trusts the signature for who, not for what: a sidecar with a fault must not make it allocate or stall."""
    good = msgspec.to_builtins(MESSAGE)
    assert decode(signed(msgspec.msgpack.encode(good)), SECRET) == MESSAGE
    assert reason_of(signed(msgspec.msgpack.encode({**good, **changes}))) == "malformed"


def test_size_and_version_are_looked_at_before_anything_else():
    assert reason_of(bytes(MAX_MESSAGE_BYTES + 1)) == "size"
    assert reason_of(signed(b"", version=2)) == "version"


def test_the_bytes_of_version_1_are_pinned():
    """A worker and a sidecar of different releases must agree: another layout needs another version."""
    import hashlib

    assert hashlib.sha256(encode(MESSAGE, SECRET)).hexdigest()[:16] == "be9b50ffac34f256"
