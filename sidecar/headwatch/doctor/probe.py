"""One look at a sidecar over HTTP: does it answer, is it headwatch, what does it say of the pair.

The standard library is enough, so the doctor also runs in the base install.  Proxies of the environment are not used and
redirects not followed: the answer is that of the address itself.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from headwatch.addresses import mask_url
from headwatch.errors import CommandError
from headwatch.health import Health

TIMEOUT_SECONDS = 5.0
MAX_BODY_BYTES = 16 * 1024 * 1024
VERSION_HEADER = "X-Headwatch-Version"

Answer = Literal["headwatch", "other", "none"]


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found at an address."""

    answer: Answer
    """``other``: something listens there that is no sidecar.  ``none``: nothing answers."""
    detail: str = ""
    """Why there is no ``health``; empty where there is one."""
    version: str = ""
    """The sidecar's version of headwatch."""
    health: Health | None = None


def probe(url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> Probe:
    """Return what answers at *url*.

    Raises:
        CommandError: *url* is no address of an HTTP server.
    """
    try:
        code, headers, _ = _get(url, "/healthz", timeout_seconds)
    except http.client.HTTPException as error:
        return Probe("other", f"what listens there does not speak HTTP ({type(error).__name__})")
    except OSError as error:
        return Probe("none", _why(error, timeout_seconds))
    version = headers.get(VERSION_HEADER, "")
    if not version:
        return Probe("other", f"what listens there is no headwatch sidecar (/healthz answered {code})")
    try:
        return Probe("headwatch", "", version, _health(url, timeout_seconds))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Probe("headwatch", f"/api/v1/status: {error}", version)


def check_url(url: str) -> None:
    """Check that *url* can be asked at all.

    Raises:
        CommandError: *url* is no address of an HTTP server.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")  # labels of a name have at most 63 characters
        _ = parts.port  # reading it checks its range
    except ValueError as error:
        raise CommandError(f"{mask_url(url)!r}: {error}") from error
    if parts.scheme not in {"http", "https"} or not host or not url.isascii() or " " in url or not url.isprintable():
        raise CommandError(f"{mask_url(url)!r}: give an address such as http://127.0.0.1:9464")


def _health(url: str, timeout_seconds: float) -> Health:
    code, _, body = _get(url, "/api/v1/status", timeout_seconds)
    if code != http.client.OK:
        raise ValueError(f"answered {code}")
    return msgspec.json.decode(body, type=Health)


def _why(error: OSError, timeout_seconds: float) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_seconds:.0f} s"
    return error.strerror or str(error)


def _get(url: str, path: str, timeout_seconds: float) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = _connection(url, timeout_seconds)
    try:
        connection.request("GET", urlsplit(url).path.rstrip("/") + path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        return response.status, response.headers, response.read(MAX_BODY_BYTES)
    finally:
        connection.close()


def _connection(url: str, timeout_seconds: float) -> http.client.HTTPConnection:
    check_url(url)
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=timeout_seconds)
