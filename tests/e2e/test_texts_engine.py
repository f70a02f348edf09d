"""Texts of a real vLLM server: off, nothing that it sends holds any; on, they arrive redacted and open; no token differs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import zmq

from headwatch.client import request_field
from headwatch.demo.processes import Server
from headwatch.demo.servers import SERVED_MODEL, Addresses, Control, config_text, vllm_command, vllm_environ
from headwatch.model import SummaryBatch, TextFrame
from headwatch.text.keys import new_key
from headwatch.wire import codec

from ..integration.disk_search import files_with
from ..integration.tiny_models import build
from ..programs import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.engine

SECRET = "zebra secret 77"
PROMPT = f"The {SECRET} of zebra@example.org leaves at a quarter past four."
KEEPING = """
[text]
enabled = true
[text.routes.hr]
keep = true
redact = [{name = "hour", pattern = "quarter past \\\\w+"}]
"""


def complete(address: str, prompt: str | list[int], route: str) -> dict[str, Any]:
    """Return the id and the tokens of the greedy continuation of *prompt*."""
    body = {
        "model": SERVED_MODEL, "prompt": prompt, "temperature": 0, "max_tokens": 8, "logprobs": 0, "ignore_eos": True,
        "vllm_xargs": request_field(route=route, user="ada"),
    }  # fmt: skip
    answer = httpx.post(f"{address}/v1/completions", json=body, timeout=240, trust_env=False)
    assert answer.status_code == 200, answer.text
    return {"id": answer.json()["id"], "tokens": answer.json()["choices"][0]["logprobs"]["tokens"]}


@contextmanager
def recording(endpoint: str) -> Iterator[list[bytes]]:
    """Take what is sent to *endpoint* as it comes, in the sidecar's place."""
    payloads: list[bytes] = []
    ended = threading.Event()

    def receive() -> None:
        with zmq.Context() as context, context.socket(zmq.PULL) as socket:
            socket.bind(endpoint)
            while not ended.is_set():
                if socket.poll(100):
                    payloads.append(socket.recv())

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        yield payloads
    finally:
        ended.set()
        thread.join()


class Site:
    """A folder with a configuration, and the environments of the two servers that read it."""

    def __init__(self, folder: Path, text: str) -> None:
        folder.mkdir()
        self.folder, self.addresses = folder, Addresses.free()
        path = folder / "headwatch.toml"
        path.write_text(config_text(self.addresses, folder / "state" / "store", None, Control.made(folder)) + text)
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATCH_")}
        self.environ["HEADWATCH_CONFIG"] = str(path)
        self.with_key = {**self.environ, "HEADWATCH_TEXT_KEY": new_key()}

    @contextmanager
    def vllm(self, model: Path) -> Iterator[str]:
        """Run vLLM, which never sees the key."""
        command = vllm_command(model, self.addresses)
        with Server("vLLM", command, self.folder / "vllm.log", vllm_environ(self.environ)) as server:
            server.wait_until_healthy(f"{self.addresses.vllm}/health", 300)
            yield self.addresses.vllm

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "headwatch.cli.main", *arguments],
            env=self.with_key,
            capture_output=True,
            text=True,
            check=False,
        )


def test_texts_leave_vllm_only_where_they_are_turned_on_and_then_arrive_redacted(tmp_path: Path) -> None:
    model = build(tmp_path / "model", "gqa")
    off = Site(tmp_path / "off", "\n[text]\nenabled = false\ndefault = 'keep'\n")
    with recording(off.addresses.wire) as payloads, off.vllm(model) as address:
        plain = [complete(address, PROMPT, route)["tokens"] for route in ("hr", "it")]
        wait_for(lambda: len(summarised(payloads)) >= 2, "frames of both requests", 60)
    assert not any(isinstance(codec.decode(payload), TextFrame) for payload in payloads)
    assert not any(word in payload for payload in payloads for word in (SECRET.encode(), b"zebra@"))

    on = Site(tmp_path / "on", KEEPING)
    sidecar = [sys.executable, "-m", "headwatch.cli.main", "sidecar"]
    assert subprocess.run(sidecar, env=on.environ, capture_output=True, check=False).returncode == 2, (
        "without a key it does not start"
    )
    with Server("the sidecar", sidecar, on.folder / "sidecar.log", on.with_key) as running, on.vllm(model) as address:
        running.wait_until_healthy(f"{on.addresses.sidecar}/healthz", 60)
        kept, other = complete(address, PROMPT, "hr"), complete(address, PROMPT, "it")
        assert [kept["tokens"], other["tokens"]] == plain
        ids = httpx.post(f"{address}/tokenize", json={"prompt": PROMPT}, trust_env=False).json()["tokens"]
        decoded = complete(address, ids, "hr")
        assert decoded["tokens"] == plain[0]
        for one in (kept, decoded):
            wait_for(lambda one=one: on.command("text", "show", one["id"]).returncode == 0, "the text to be stored", 60)  # type: ignore[misc]
        shown = [json.loads(on.command("text", "show", one["id"], "--json").stdout) for one in (kept, decoded)]
        refused = on.command("text", "show", other["id"])
    for (row,) in shown:
        assert f"The {SECRET} of [email] leaves at a [hour]." in row["text"]
        assert (row["redactions"], row["route"], row["user"]) == ({"email": 1, "hour": 1}, "hr", "ada")
    assert refused.returncode == 1
    assert "no text is kept" in refused.stderr
    assert files_with(on.folder / "state", kept["id"]), "the search finds what is there"
    for word in (SECRET, "zebra@", "past four"):
        assert files_with(on.folder, word) == [], "in state and logs alike"


def summarised(payloads: list[bytes]) -> set[str]:
    """Return the routes of the requests of which rows came."""
    frames = [codec.decode(payload) for payload in list(payloads)]
    return {context.route for frame in frames if isinstance(frame, SummaryBatch) for context in frame.requests}
