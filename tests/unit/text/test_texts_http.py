"""Texts through HTTP and the command: ciphertext with the token alone, opened with one's own key, noted without whose it is."""

from __future__ import annotations

import base64
import json
import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from headwatch.cli.main import main
from headwatch.console.app import create_app
from headwatch.console.server import HttpServer
from headwatch.console.static import StaticReader, StaticView
from headwatch.health import Health
from headwatch.text.keys import new_key

from ...programs import wait_for
from .texts import ENVIRON, KEPT, SERVICE, keeper, text_frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "t" * 32
SECRET = "zebra-secret-77"


def stored(**changes: Any) -> dict[str, Any]:
    """Return a row as the store's reader answers it."""
    row = keeper(KEPT).kept(text_frame(f"{SECRET} of a@b.de\x1b[2J", route="hr"))
    return {
        "time_ns": row.time_ns, "service": SERVICE, "request_id": "chatcmpl-1", "kind": "prompt", "route": "hr",
        "chars": row.chars, "kept_chars": row.kept_chars, "redactions": row.redactions, "key": row.key,
        "body": base64.b64encode(row.body).decode(),
        **changes,
    }  # fmt: skip


def serving(row: dict[str, Any], token: bytes = TOKEN.encode()) -> HttpServer:
    app = create_app(StaticView(Health(0, (), {}, {}), reader=StaticReader(text_rows=[row])), token=token)
    server = HttpServer(app, "127.0.0.1", 0)
    server.start()
    return server


@pytest.fixture
def url() -> Iterator[str]:
    server = serving(stored())
    yield f"http://127.0.0.1:{server.port}"
    server.stop()


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    monkeypatch.setenv("HEADWATCH_TEXT_KEY", ENVIRON["HEADWATCH_TEXT_KEY"])
    monkeypatch.delenv("HEADWATCH_TEXT_OLD_KEYS", raising=False)
    return ["text", "show", "chatcmpl-1", "--token-file", str(tmp_path / "token"), "--url"]


def test_texts_need_the_token_and_come_as_ciphertext(url: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "headwatch.audit")
    head = {"Authorization": f"Bearer {TOKEN}"}
    asked = {"request": "chatcmpl-1"}
    assert httpx.get(f"{url}/api/v1/texts", params=asked).status_code == 401
    assert httpx.get(f"{url}/api/v1/texts", params=asked, headers={"Authorization": "Bearer x"}).status_code == 401
    assert httpx.get(f"{url}/api/v1/texts", headers=head).status_code == 400
    assert httpx.get(f"{url}/api/v1/texts", params={"requst": "a"}, headers=head).status_code == 400
    assert httpx.get(f"{url}/api/v1/texts", params={"request": "nobody"}, headers=head).json() == []
    answer = httpx.get(f"{url}/api/v1/texts", params=asked, headers=head)
    assert answer.status_code == 200
    (row,) = answer.json()
    assert row["redactions"] == {"email": 1}
    assert SECRET not in answer.text
    assert SECRET.encode() not in base64.b64decode(row["body"])
    wait_for(lambda: len(caplog.records) == 6, "each read to be noted, the refused ones too")
    noted = [json.loads(record.getMessage()) for record in caplog.records]
    assert [(one["path"], one["status"]) for one in noted][-1] == ("/api/v1/texts", 200)
    assert "chatcmpl-1" not in caplog.text


def test_without_a_token_there_is_no_way():
    server = serving(stored(), b"")
    answer = httpx.get(f"http://127.0.0.1:{server.port}/api/v1/texts", params={"request": "chatcmpl-1"})
    server.stop()
    assert (answer.status_code, "no text can be read" in answer.text) == (403, True)


def test_the_command_opens_the_text_and_steers_no_terminal(
    url: str, command: list[str], capsys: pytest.CaptureFixture[str]
):
    assert main([*command, url]) == 0
    assert capsys.readouterr().out == (
        f"# prompt of chatcmpl-1, route hr: 30 characters of 29; redacted: email 1\n{SECRET} of [email][2J\n"
    )
    assert main([*command, url, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["text"] == f"{SECRET} of [email]\x1b[2J"
    assert "body" not in row


def test_an_old_key_still_opens_what_was_sealed_with_it(
    url: str, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("HEADWATCH_TEXT_KEY", new_key())
    assert main([*command, url]) == 1
    assert "is sealed with the key" in one_line(capsys)
    monkeypatch.setenv("HEADWATCH_TEXT_OLD_KEYS", f"{new_key()} {ENVIRON['HEADWATCH_TEXT_KEY']}")
    assert main([*command, url]) == 0
    assert SECRET in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"request_id": "chatcmpl-1", "time_ns": 7}, "changed after it was sealed"), ({"service": "other"}, "changed after"),
        ({"body": "AQ=="}, "1 bytes are no sealed text"), ({"body": "?"}, "no sealed text"), ({"body": None}, "no sealed text"),
    ],
)  # fmt: skip
def test_what_was_changed_is_one_clear_line(
    changes: dict[str, Any], message: str, command: list[str], capsys: pytest.CaptureFixture[str]
):
    server = serving(stored(**changes))
    assert main([*command, f"http://127.0.0.1:{server.port}"]) == 1
    server.stop()
    assert message in one_line(capsys)


def test_a_request_without_a_text_and_a_missing_key_are_said(
    url: str, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    command[2] = "nobody / here?"
    assert main([*command, url]) == 1
    assert "no text is kept of the request 'nobody / here?'" in one_line(capsys)
    monkeypatch.delenv("HEADWATCH_TEXT_KEY")
    assert main([*command, url]) == 2
    assert "HEADWATCH_TEXT_KEY" in one_line(capsys)


def test_a_new_key_is_one_that_can_be_used(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    keys = set()
    for _ in range(2):
        assert main(["text", "key"]) == 0
        keys.add(capsys.readouterr().out.strip())
    assert len(keys) == 2
    assert all(len(base64.urlsafe_b64decode(key)) == 32 for key in keys)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a command said on stderr, having printed nothing else."""
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err
