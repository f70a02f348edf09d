"""Sealed texts: they open with their key in their row, and otherwise never; each failure has one clear line."""

from __future__ import annotations

import sys

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from headwatch.config import TextConfig
from headwatch.errors import ConfigError, TextError
from headwatch.text.keys import TextKey, new_key, reading_keys, sealing_key
from headwatch.text.seal import BUCKET_BYTES, Belonging, seal, unseal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KEY = TextKey.of(bytes(range(32)))
KEYS = {KEY.name: KEY}
ROW = Belonging("vllm", "chatcmpl-1", "prompt", 7)


def refusal(body: bytes, keys: dict[str, TextKey] = KEYS, row: Belonging = ROW) -> TextError:
    with pytest.raises(TextError) as refused:
        unseal(body, keys, row)
    assert "\n" not in str(refused.value)
    return refused.value


@given(text=st.text(max_size=500))
def test_a_text_comes_back_as_it_was_and_never_twice_as_the_same_bytes(text: str):
    first, second = seal(text, KEY, ROW), seal(text, KEY, ROW)
    assert unseal(first, KEYS, ROW) == unseal(second, KEYS, ROW) == text
    assert first != second
    assert len(text) < 8 or text.encode() not in first


@pytest.mark.parametrize(
    "change", [{"service": "other"}, {"request_id": "chatcmpl-2"}, {"kind": "output"}, {"time_ns": 8}]
)
def test_a_text_in_another_row_does_not_open(change: dict[str, object]):
    assert refusal(seal("secret", KEY, ROW), row=msgspec.structs.replace(ROW, **change)).reason == "changed"


@given(data=st.data())
def test_a_text_that_was_changed_anywhere_does_not_open(data: st.DataObject):
    body = bytearray(seal("secret", KEY, ROW))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    assert refusal(bytes(body)).reason == ("version" if place == 0 else "unknown_key" if place < 5 else "changed")


@given(body=st.binary(max_size=100))
def test_bytes_that_are_no_text_are_refused(body: bytes):
    refusal(body)


def test_each_way_to_fail_says_what_is_wrong():
    body, other = seal("secret", KEY, ROW), TextKey.of(bytes(32))
    unknown = refusal(body, {other.name: other})
    assert unknown.reason == "unknown_key"
    assert KEY.name in str(unknown)
    assert other.name in str(unknown)
    assert "changed after it was sealed" in str(refusal(body[:-1]))
    wrong = TextKey(KEY.name, bytes(32))
    assert refusal(body, {KEY.name: wrong}).reason == "changed"
    sealed = AESGCM(KEY.secret).encrypt(body[5:17], b"\0\0\0\7no zstd", b"headwatch text" + body[:5] + msgspec.json.encode(ROW))
    assert refusal(body[:17] + sealed).reason == "malformed"
    assert all("secret" not in str(error) for error in (unknown, refusal(body[:-1])))


def test_a_text_of_version_1_without_padding_still_opens():
    header = bytes((1,)) + bytes.fromhex(KEY.name)
    packed, nonce = zstd.compress("secret é".encode()), bytes(12)
    sealed = AESGCM(KEY.secret).encrypt(nonce, packed, b"headwatch text" + header + msgspec.json.encode(ROW))
    assert unseal(header + nonce + sealed, KEYS, ROW) == "secret é"


def test_a_length_does_not_tell_a_right_guess_from_a_wrong_one():
    text = "System: the project codename is Bluefalcon42 and nobody may know.\nUser: is the project codename is {}\nAssistant:"
    guesses = ("Bluefalcon42", "Redgiraffe77", "Bluefalcon99", "Bluefaxyzq42", "Quietotter31")
    assert len({len(zstd.compress(text.format(guess).encode())) for guess in guesses}) > 1, "they compress differently"
    assert len({len(seal(text.format(guess), KEY, ROW)) for guess in guesses}) == 1


@given(text=st.text(max_size=3000))
def test_what_is_sealed_has_one_of_few_lengths(text: str):
    assert (len(seal(text, KEY, ROW)) - 1 - 4 - 12 - 16) % BUCKET_BYTES == 0


def test_keys_are_read_from_the_environment_old_ones_too():
    config, new, old, older = TextConfig(), new_key(), new_key(), new_key()
    environ = {"HEADWATCH_TEXT_KEY": f" {new} \n", "HEADWATCH_TEXT_OLD_KEYS": f"{old}, {older}"}
    keys = reading_keys(config, environ)
    assert len(keys) == 3
    assert sealing_key(config, environ).name in keys
    assert list(reading_keys(config, {"HEADWATCH_TEXT_OLD_KEYS": old})) == [
        sealing_key(config, {"HEADWATCH_TEXT_KEY": old}).name
    ]
    for key in keys.values():
        assert str(key.secret) not in repr(key)
        assert key.secret.hex() not in repr(key)


@pytest.mark.parametrize("given", ["", "x", "k" * 41, "ä" * 44, "=" * 44], ids=["none", "one", "short", "umlauts", "padding"])
def test_what_is_no_key_is_refused_without_being_shown(given: str):
    for read in (sealing_key, reading_keys):
        with pytest.raises(ConfigError) as refused:
            read(TextConfig(), {"HEADWATCH_TEXT_KEY": given})
        assert "HEADWATCH_TEXT_KEY" in str(refused.value)
        assert len(given) < 4 or given not in str(refused.value)
