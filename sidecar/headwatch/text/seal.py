"""A text sealed: compressed, padded, then AES-256-GCM with a random nonce, bound to the row that it belongs to.

A sealed body is a byte of version, the four bytes that name the key, a nonce of 12 bytes, and what AES-GCM makes, its tag of 16
bytes at the end.  Authenticated along with it are version, key name, service, request id, kind and time: a body that was moved
to another row, or changed, does not open.

Nonces are random, so one key seals up to 2**32 texts with a chance of 2**-32 that two share a nonce (NIST SP 800-38D, 8.3):
at a hundred a second that is sixteen months.  Rotate the key before.

Compression comes first, since nothing compresses after.  How long a text is when it is compressed tells whether parts of it
are alike; who sees lengths and may also put words into the same prompt could guess at the rest of it, one guess a request.  So
what is sealed is its length in four bytes, itself, and zeros up to a multiple of :data:`BUCKET_BYTES`: a guess shows only where
it moves the length over such a border, which takes many more of them.  Version 1 had no padding, and is still opened.
"""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headwatch.config.text import LARGEST_CHARS
from headwatch.errors import TextError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwatch.text.keys import TextKey

VERSION = 2
BUCKET_BYTES = 256
_UNPADDED = 1
_LENGTH = 4
_NAME, _NONCE, _TAG = 4, 12, 16
_HEADER = 1 + _NAME + _NONCE
_MOST_BYTES = 4 * (LARGEST_CHARS + 1)
"""Of what is unpacked: UTF-8 takes four bytes a character at most."""


class Belonging(msgspec.Struct, frozen=True, array_like=True):
    """What binds a sealed text to its row."""

    service: str
    request_id: str
    kind: str
    time_ns: int


def seal(text: str, key: TextKey, belonging: Belonging) -> bytes:
    """Return *text* sealed with *key* for the row that *belonging* names."""
    header = bytes((VERSION,)) + bytes.fromhex(key.name)
    nonce = secrets.token_bytes(_NONCE)
    packed = _padded(zstd.compress(text.encode("utf-8", "replace")))
    return header + nonce + AESGCM(key.secret).encrypt(nonce, packed, _bound(header, belonging))


def unseal(body: bytes, keys: Mapping[str, TextKey], belonging: Belonging) -> str:
    """Return the text in *body*, which is whatever came.

    Raises:
        TextError: With reason ``malformed``, ``version``, ``unknown_key`` or ``changed``.
    """
    if len(body) < _HEADER + _TAG:
        raise TextError("malformed", f"{len(body)} bytes are no sealed text")
    if body[0] not in (_UNPADDED, VERSION):
        raise TextError("version", f"a text sealed in version {body[0]}; this headwatch opens {_UNPADDED} and {VERSION}")
    header, nonce = body[: 1 + _NAME], body[1 + _NAME : _HEADER]
    name = header[1:].hex()
    if name not in keys:
        raise TextError("unknown_key", f"the text is sealed with the key {name}, and the keys at hand are {', '.join(keys)}; "
                                       "without it nobody can read the text")
    try:
        packed = AESGCM(keys[name].secret).decrypt(nonce, body[_HEADER:], _bound(header, belonging))
    except InvalidTag:
        raise TextError("changed", "the text, or the row that it stands in, was changed after it was sealed") from None
    return _unpacked(packed if body[0] == _UNPADDED else packed[_LENGTH : _LENGTH + int.from_bytes(packed[:_LENGTH], "big")])


def _padded(packed: bytes) -> bytes:
    framed = len(packed).to_bytes(_LENGTH, "big") + packed
    return framed + bytes(-len(framed) % BUCKET_BYTES)


def _bound(header: bytes, belonging: Belonging) -> bytes:
    return b"headwatch text" + header + msgspec.json.encode(belonging)


def _unpacked(packed: bytes) -> str:
    decompressor: Any = zstd.ZstdDecompressor()
    try:
        text = decompressor.decompress(packed, max_length=_MOST_BYTES)
        if not decompressor.eof:
            raise TextError("malformed", f"the text is longer than {_MOST_BYTES} bytes")
        return str(text, "utf-8")
    except (zstd.ZstdError, UnicodeDecodeError):
        raise TextError("malformed", "what was sealed is no text") from None
