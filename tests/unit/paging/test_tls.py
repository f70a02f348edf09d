"""Certificates: what nobody vouches for gets neither page nor token; an authority of one's own can be named."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headwatch.errors import ExportError
from headwatch_exporters.paging.grafana import GrafanaSender
from headwatch_exporters.paging.page import Page
from headwatch_exporters.paging.webhook import WebhookSender

from ..incidents import incident
from .receiver import Answer, receiving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwatch_exporters.paging.page import Sender

    from .receiver import Receiver

PAGE = Page("k", "opened", "vllm", incident(), "https://r", "http://c")
SENDERS: dict[str, Callable[[str], Sender]] = {
    "webhook": lambda url: WebhookSender(url, b"0123456789abcdef"),
    "grafana": lambda url: GrafanaSender(url, b"glsa_0123456789abcdef"),
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine that it signed itself, with its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem",
    ]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    both = folder / "both.pem"
    both.write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return both


@pytest.fixture
def receiver(certificate: Path) -> Iterator[Receiver]:
    with receiving(certificate) as running:
        running.answer = lambda _: Answer(200, b"[]", {"Content-Type": "application/json"})
        yield running


@pytest.mark.parametrize("name", SENDERS)
def test_a_certificate_that_nobody_vouches_for_is_refused(receiver: Receiver, name: str):
    sender = SENDERS[name](receiver.url)
    with pytest.raises(ExportError, match=r"(?i)certificate"):
        sender.send(PAGE)
    sender.close()
    assert receiver.received == []


@pytest.mark.parametrize("name", SENDERS)
def test_an_authority_of_ones_own_is_named_by_the_environment(
    receiver: Receiver, certificate: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSL_CERT_FILE" if name == "webhook" else "REQUESTS_CA_BUNDLE", str(certificate.with_name("cert.pem")))
    sender = SENDERS[name](receiver.url)
    sender.send(PAGE)
    sender.close()
    assert receiver.received
