"""The keys that seal texts: from the environment, 256 bits each, known by a name that says nothing of them.

``headwatch text key`` makes one.  The sidecar seals with one key; whoever reads may have earlier ones beside it.  A key that is
gone takes its texts along: nothing else can open them, and that is a way to delete them all.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from headwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwatch.config import TextConfig

KEY_BYTES = 32
_NAME_BYTES = 4
_MAKE = "make one with `headwatch text key`"


@dataclass(frozen=True, slots=True)
class TextKey:
    """One key, and the eight hex digits that it is known by."""

    name: str
    secret: bytes

    @classmethod
    def of(cls, secret: bytes) -> TextKey:
        """Return the key of 32 bytes *secret*."""
        return cls(blake2b(secret, digest_size=_NAME_BYTES, person=b"hw-text-key").hexdigest(), secret)

    def __repr__(self) -> str:
        """Return the name alone."""
        return f"TextKey({self.name!r})"


def new_key() -> str:
    """Return a new key as its variable holds it."""
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def sealing_key(config: TextConfig, environ: Mapping[str, str]) -> TextKey:
    """Return the key that new texts are sealed with.

    Raises:
        ConfigError: The variable is missing, or holds no key.
    """
    given = environ.get(config.key_env, "").strip()
    if not given:
        raise ConfigError(f"text.enabled: the environment variable {config.key_env} is not set; {_MAKE}")
    return _parsed(config.key_env, given)


def reading_keys(config: TextConfig, environ: Mapping[str, str]) -> dict[str, TextKey]:
    """Return every key that texts can be opened with, by name.

    Raises:
        ConfigError: Neither variable is set, or one of them holds something else.
    """
    keys = [_parsed(config.key_env, word) for word in _words(environ.get(config.key_env, ""))]
    keys += [_parsed(config.old_keys_env, word) for word in _words(environ.get(config.old_keys_env, ""))]
    if not keys:
        raise ConfigError(f"no key: set the environment variable {config.key_env} (earlier keys: {config.old_keys_env})")
    return {key.name: key for key in keys}


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,]+", text) if word]


def _parsed(variable: str, text: str) -> TextKey:
    try:
        secret = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != KEY_BYTES:
        raise ConfigError(f"the environment variable {variable} holds no key of {KEY_BYTES} bytes in base64; {_MAKE}")
    return TextKey.of(secret)
