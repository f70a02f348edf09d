"""Pages by webhook, signed as Standard Webhooks (https://www.standardwebhooks.com) says.

HMAC-SHA256 over ``id.timestamp.body`` proves who sent a page and when, so that it can be neither made up nor played back
later; there are libraries for the receiving side in a dozen languages.  ``webhook-id`` is the key of the page, the same
whenever the same page is sent again: a receiver that has seen it answers 200 and does nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any

import msgspec

from headwatch.errors import ConfigError
from headwatch_exporters.paging import http

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch.findings import Evidence, Incident
    from headwatch_exporters.paging.page import Page

VERSION = "1"
MAX_BODY_BYTES = 256 * 1024
_EVIDENCE, _HEADS, _EXAMPLES = 20, 20, 20
"""What a body that is too large keeps: of the evidence, of the heads of each, of documents and requests."""
_BASE64_PREFIX = b"whsec_"


class WebhookSender:
    """Posts each page as JSON.  Without a *secret* nothing is signed: for receivers on this machine."""

    name = "webhook"
    refresh_seconds = 0.0

    def __init__(
        self,
        url: str,
        secret: bytes = b"",
        *,
        pages: bool = True,
        clock: Callable[[], float] = time.time,
        timeout_seconds: float = http.TIMEOUT_SECONDS,
    ) -> None:
        """Prepare the connection; the receiver is first needed by :meth:`send`.

        Raises:
            ConfigError: The URL is none, or the secret is no base64 where it says that it is.
        """
        self._url = http.checked_url("incident.webhook_url", url)
        self._key = _key(secret)
        self._role = "page" if pages else "mirror"
        self._clock = clock
        self._client = http.client(timeout_seconds)

    def send(self, page: Page) -> None:
        """Post *page*.

        Raises:
            ExportError: The receiver cannot be reached, or does not answer 2xx.
        """
        content = body(page, self._role)
        stamp = str(int(self._clock()))
        headers = {"webhook-id": page.key, "webhook-timestamp": stamp, "Idempotency-Key": page.key}
        if self._key:
            headers["webhook-signature"] = signature(self._key, page.key, stamp, content)
        http.post(self._client, self._url, content, headers, "webhook")

    def refresh(self, pages: Sequence[Page]) -> None:
        """Do nothing: a receiver remembers what it was told."""

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __repr__(self) -> str:
        """Return what it is without its secret."""
        return f"WebhookSender(role={self._role!r}, signed={bool(self._key)})"


def signature(key: bytes, message_id: str, stamp: str, content: bytes) -> str:
    """Return the value of ``webhook-signature``."""
    digest = hmac.new(key, f"{message_id}.{stamp}.".encode() + content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def body(page: Page, role: str) -> bytes:
    """Return *page* as JSON, at most :data:`MAX_BODY_BYTES`: what is too long is shortened, and the body says so.

    Whose requests and documents are shown stays on this host.
    """
    incident = msgspec.structs.replace(page.incident, exhibits=page.incident.exhibits.unowned())
    content = _encoded(page, incident, role, shortened=False)
    if len(content) <= MAX_BODY_BYTES:
        return content
    content = _encoded(page, _shorter(incident), role, shortened=True)
    if len(content) <= MAX_BODY_BYTES:
        return content
    bare = msgspec.structs.replace(
        incident, event=msgspec.structs.replace(incident.event, evidence=()), exhibits=type(incident.exhibits)(),
        note=incident.note[:1000],
    )  # fmt: skip
    return _encoded(page, bare, role, shortened=True)


def _encoded(page: Page, incident: Incident, role: str, *, shortened: bool) -> bytes:
    document: dict[str, Any] = {
        "version": VERSION,
        "kind": page.kind,
        "role": role,
        "key": page.key,
        "service": page.service,
        "title": page.title,
        "runbook_url": page.runbook_url,
        "console_url": page.console_url,
        "shortened": shortened,
        "incident": incident,
    }
    return msgspec.json.encode(document)


def _shorter(incident: Incident) -> Incident:
    def fewer(evidence: Evidence) -> Evidence:
        return msgspec.structs.replace(evidence, heads=evidence.heads[:_HEADS])

    event, exhibits = incident.event, incident.exhibits
    return msgspec.structs.replace(
        incident,
        event=msgspec.structs.replace(event, evidence=tuple(fewer(item) for item in event.evidence[:_EVIDENCE])),
        exhibits=msgspec.structs.replace(
            exhibits, documents=exhibits.documents[:_EXAMPLES], requests=exhibits.requests[:_EXAMPLES],
            canary=exhibits.canary and msgspec.structs.replace(exhibits.canary, heads=exhibits.canary.heads[:_HEADS]),
        ),
    )  # fmt: skip


def _key(secret: bytes) -> bytes:
    if not secret.startswith(_BASE64_PREFIX):
        return secret
    try:
        return base64.b64decode(secret[len(_BASE64_PREFIX) :] + b"==", validate=False)
    except binascii.Error as error:
        raise ConfigError("incident.webhook_secret_file: what follows whsec_ is no base64") from error
