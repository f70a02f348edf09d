"""Webhooks against a real HTTP server, verified with the reference library of Standard Webhooks."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from headwatch.errors import ConfigError, ExportError
from headwatch.findings import Incident
from headwatch_exporters.paging.page import Page
from headwatch_exporters.paging.webhook import MAX_BODY_BYTES, WebhookSender

from ..incidents import event, evidence, exhibits, head, incident
from .receiver import Answer, receiving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .receiver import Receiver

SECRET = b"0123456789abcdef0123456789abcdef"


def page(shown: Incident | None = None, **changes: str) -> Page:
    found = Page("hw-1-opened-1-webhook", "opened", "vllm", shown or incident(), "https://run/retrieval.md", "http://c/1")
    return msgspec.structs.replace(found, **changes)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def sender(receiver: Receiver) -> Iterator[WebhookSender]:
    made = WebhookSender(f"{receiver.url}/hook?team=a", SECRET)
    yield made
    made.close()


def test_a_page_arrives_whole(sender: WebhookSender, receiver: Receiver):
    sender.send(page())
    (got,) = receiver.received
    assert (got.method, got.path, got.headers["content-type"]) == ("POST", "/hook?team=a", "application/json")
    document = json.loads(got.body)
    assert msgspec.convert(document.pop("incident"), Incident) == incident()
    assert document == {
        "version": "1", "kind": "opened", "role": "page", "key": "hw-1-opened-1-webhook", "service": "vllm", "shortened": False,
        "title": "[critical] retrieval: Documents of route support are given and not read.",
        "runbook_url": "https://run/retrieval.md", "console_url": "http://c/1",
    }  # fmt: skip


def test_the_signature_is_what_the_reference_library_expects(sender: WebhookSender, receiver: Receiver):
    sender.send(page())
    (got,) = receiver.received
    assert Webhook(SECRET).verify(got.body, got.headers)["kind"] == "opened"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(got.body.replace(b"critical", b"info"), got.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(b"another secret of some length").verify(got.body, got.headers)


def test_a_secret_in_the_form_of_standard_webhooks_is_decoded(receiver: Receiver):
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    sender = WebhookSender(receiver.url, secret.encode())
    sender.send(page())
    sender.close()
    (got,) = receiver.received
    assert Webhook(secret).verify(got.body, got.headers)["version"] == "1"
    with pytest.raises(ConfigError, match="no base64"):
        WebhookSender(receiver.url, b"whsec_a")


def test_the_key_is_the_same_in_every_attempt_and_the_signature_is_fresh(receiver: Receiver):
    """A receiver knows a page that it has by its id; an old signature cannot be played back, since its time is in it."""
    now = [1_800_000_000.9]
    sender = WebhookSender(receiver.url, SECRET, clock=lambda: now[0])
    sender.send(page())
    now[0] += 600
    sender.send(page())
    sender.close()
    first, second = (got.headers for got in receiver.received)
    assert first["webhook-id"] == second["webhook-id"] == first["idempotency-key"] == "hw-1-opened-1-webhook"
    assert (first["webhook-timestamp"], second["webhook-timestamp"]) == ("1800000000", "1800000600")
    assert first["webhook-signature"] != second["webhook-signature"]


def test_without_a_secret_nothing_claims_to_be_signed(receiver: Receiver):
    sender = WebhookSender(receiver.url, pages=False)
    sender.send(page())
    sender.close()
    (got,) = receiver.received
    assert "webhook-signature" not in got.headers
    assert json.loads(got.body)["role"] == "mirror"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_refused_and_not_followed(sender: WebhookSender, receiver: Receiver, status: int):
    """It would take the signed page to a place that nobody configured."""
    with receiving() as elsewhere:
        receiver.answer = lambda _: Answer(status, headers={"Location": elsewhere.url})
        with pytest.raises(ExportError, match=f"answered {status}; redirects are not followed"):
            sender.send(page())
        assert elsewhere.received == []


def test_a_receiver_that_refuses_is_quoted_in_one_short_line(sender: WebhookSender, receiver: Receiver):
    receiver.answer = lambda _: Answer(503, b"down\nfor " + b"x" * 100_000)
    with pytest.raises(ExportError, match="answered 503: down for x") as caught:
        sender.send(page())
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)


def test_a_receiver_that_does_not_answer_is_given_up_in_time(receiver: Receiver):
    sender = WebhookSender(receiver.url, SECRET, timeout_seconds=0.2)
    hold = threading.Event()
    receiver.answer = lambda _: Answer(hold=hold)
    started = time.monotonic()
    with pytest.raises(ExportError, match="ReadTimeout"):
        sender.send(page())
    assert time.monotonic() - started < 2
    hold.set()
    sender.close()


def test_a_receiver_that_is_away_is_an_error_without_the_password(receiver: Receiver):
    sender = WebhookSender("http://user:hunter2@127.0.0.1:9/hook?token=abc")
    with pytest.raises(ExportError, match="ConnectError") as caught:
        sender.send(page())
    sender.close()
    assert "hunter2" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_credentials_in_the_address_are_sent_as_basic_auth(receiver: Receiver):
    sender = WebhookSender(receiver.url.replace("http://", "http://user:hunter2@"))
    sender.send(page())
    sender.close()
    sent = httpx.BasicAuth("user", "hunter2")._auth_header
    assert receiver.received[0].headers["authorization"] == sent


def test_a_tls_receiver_that_nobody_vouches_for_is_refused(receiver: Receiver):
    """A plain server behind https:// cannot answer the handshake: nothing of the page is sent in the clear."""
    sender = WebhookSender(receiver.url.replace("http://", "https://"), SECRET)
    with pytest.raises(ExportError, match="ConnectError"):
        sender.send(page())
    sender.close()
    assert receiver.received == []


def test_a_large_incident_is_shortened_and_says_so(sender: WebhookSender, receiver: Receiver):
    many = tuple(evidence(f"e-{n}", heads=tuple(head(k) for k in range(300))) for n in range(100))
    sender.send(page(incident(event=event(evidence=many))))
    body = receiver.received[0].body
    assert len(body) <= MAX_BODY_BYTES
    document = json.loads(body)
    assert document["shortened"] is True
    assert len(document["incident"]["event"]["evidence"]) == 20
    assert document["incident"]["exhibits"] == json.loads(msgspec.json.encode(exhibits()))


def test_what_cannot_be_shortened_enough_goes_without_its_evidence(sender: WebhookSender, receiver: Receiver):
    huge = tuple(evidence(f"e-{n}", note="x" * 50_000) for n in range(50))
    sender.send(page(incident(event=event(evidence=huge))))
    body = receiver.received[0].body
    assert len(body) <= MAX_BODY_BYTES
    assert json.loads(body)["incident"]["event"]["evidence"] == []


@pytest.mark.parametrize("url", ["", "ftp://x/y", "http://", "127.0.0.1:80", "https:///hook"])
def test_an_address_that_is_none_is_refused_at_the_start(url: str):
    with pytest.raises(ConfigError, match=r"incident\.webhook_url"):
        WebhookSender(url)


def test_the_secret_shows_nowhere(sender: WebhookSender):
    assert SECRET.decode() not in repr(sender)
