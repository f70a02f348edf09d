"""POST a JSON body to a peer that is not trusted: no redirects, every wait and every byte of the answer bounded.

A redirect is refused and not followed: it would take a signed page, or a password, to a place that nobody configured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from headwatch.addresses import mask_url
from headwatch.errors import ConfigError, ExportError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

TIMEOUT_SECONDS = 10.0
"""For connecting, and for each read and write."""
_ANSWER_BYTES = 512
"""Of an answer that refuses, for the error message."""


def checked_url(setting: str, url: str) -> str:
    """Return *url* without a slash at its end.

    Raises:
        ConfigError: It is no http or https address.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"{setting}: {mask_url(url)!r} is no http:// or https:// address")
    return url.rstrip("/")


def client(timeout_seconds: float) -> httpx.Client:
    """Return a client for :func:`post`.

    Raises:
        ConfigError: httpx is not installed.
    """
    try:
        import httpx  # noqa: PLC0415 - only where something is sent
    except ImportError as error:
        raise ConfigError("sending pages needs httpx; run: pip install 'headwatch[sidecar]'") from error
    return httpx.Client(follow_redirects=False, timeout=timeout_seconds, limits=httpx.Limits(max_connections=2))


def post(opened: httpx.Client, url: str, body: bytes, headers: Mapping[str, str], what: str) -> None:
    """Post *body* to *url*; *what* names the peer in errors.

    Raises:
        ExportError: It cannot be reached in time, or its answer is not 2xx.
    """
    import httpx  # noqa: PLC0415 - the client is there, so it is installed

    where = f"{what} {mask_url(url)}"
    try:
        with opened.stream("POST", url, content=body, headers={"Content-Type": "application/json", **headers}) as answer:
            if answer.is_success:
                return
            said = next(answer.iter_bytes(_ANSWER_BYTES), b"").decode("utf-8", "replace")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ExportError(f"{where}: {type(error).__name__}: {str(error) or 'no reason given'}") from error
    hint = "; redirects are not followed" if answer.is_redirect else ""
    raise ExportError(f"{where} answered {answer.status_code}{hint}: {' '.join(said.split())[:_ANSWER_BYTES]}")
