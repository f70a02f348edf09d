"""Who asks: by basic authentication, by the headers of ClickHouse, by a bearer token, or in the URL.

Every secret is compared with every attempt, in constant time: the clock tells neither a name nor a secret.
Where no user is configured, whoever reaches loopback may read, as on the sidecar's other pages; beyond loopback nobody may.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch.errors import ConfigError
from headwatch.secret_file import read_secret
from headwatch_exporters.clickhouse.http.refusal import QueryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwatch.config import ClickHouseUser

ANYBODY = "default"
"""The name under which reads are audited where nobody has to say who he is."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who asks, and what he sees: of *services* and *routes* only those, or all where there are none."""

    name: str
    services: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()


class Users:
    """The users of *given*, their secrets read once.

    Raises:
        ConfigError: A secret cannot be read, or is not its owner's alone; two users have one name.
    """

    def __init__(self, given: Sequence[ClickHouseUser], *, everybody: bool) -> None:
        named = Counter(user.name for user in given)
        if twice := [name for name, count in named.items() if count > 1]:
            raise ConfigError(f"clickhouse.users: {twice[0]!r} is there twice")
        self._users = [
            (user.name.encode(), read_secret(f"clickhouse.users: secret_file of {user.name}", user.secret_file),
             Reader(user.name, user.services, user.routes))
            for user in given
        ]  # fmt: skip
        self._everybody = everybody and not given

    def admit(self, headers: Mapping[str, str], parameters: Mapping[str, str]) -> Reader:
        """Return who asks with these *headers* (in lower case) and URL *parameters*.

        Raises:
            QueryError: He does not say, or not rightly.
        """
        if self._everybody:
            return Reader(ANYBODY)
        name, secret = _credentials(headers, parameters)
        found = None
        for own_name, own_secret, reader in self._users:
            named = name is None or hmac.compare_digest(name, own_name)
            if hmac.compare_digest(secret, own_secret) and named:
                found = reader
        if found is None:
            raise QueryError(
                "AUTHENTICATION_FAILED",
                "Authentication failed: password is incorrect, or there is no user with such name.",
            )
        return found

    def named(self, headers: Mapping[str, str], parameters: Mapping[str, str]) -> str:
        """Return the user that a request names, whether rightly or not; empty where there is none of that name."""
        with suppress(QueryError):
            name = _credentials(headers, parameters)[0] or b""
            known = [reader.name for own_name, _, reader in self._users if hmac.compare_digest(name, own_name)]
            return known[0] if known else ""
        return ""


def _credentials(headers: Mapping[str, str], parameters: Mapping[str, str]) -> tuple[bytes | None, bytes]:
    """Return name and secret; the name is None with a bearer token."""
    ways = []
    if scheme := headers.get("authorization", ""):
        ways.append(_authorization(scheme))
    if "x-clickhouse-user" in headers or "x-clickhouse-key" in headers:
        ways.append((_bytes(headers.get("x-clickhouse-user", "")), _bytes(headers.get("x-clickhouse-key", ""))))
    if "user" in parameters or "password" in parameters:
        ways.append((_bytes(parameters.get("user", "")), _bytes(parameters.get("password", ""))))
    if not ways:
        raise QueryError(
            "REQUIRED_PASSWORD",
            "a user has to be given: by basic authentication, X-ClickHouse-User and "
            "X-ClickHouse-Key, or a bearer token (docs/clickhouse-endpoint.md)",
        )
    if len(ways) > 1:
        raise QueryError("AUTHENTICATION_FAILED", "it is not allowed to give credentials in more than one way at once")
    return ways[0]


def _authorization(header: str) -> tuple[bytes | None, bytes]:
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return None, _bytes(value.strip())
    if scheme.lower() == "basic":
        try:
            name, _, secret = base64.b64decode(value.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return b"", b""
        return name, secret
    return b"", b""


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
