"""Capture never changes a token: off, on, and with the sidecar killed and restarted in the middle."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import httpx
import pytest

from headwatch.client import request_field
from headwatch.demo.model import prepare_model
from headwatch.demo.processes import Server
from headwatch.demo.servers import SERVED_MODEL, Addresses, config_text, vllm_command, vllm_environ

pytestmark = pytest.mark.model

REQUESTS = 40
TOPICS = ("tea", "bridges", "rain", "bread", "clocks", "maps", "rivers", "ink")


def ask(address: str, number: int) -> tuple[str, list[str]]:
    """Return the answer and its tokens to greedy request *number*."""
    topic = TOPICS[number % len(TOPICS)]
    document = f"Note {number}: the museum of {topic} opens at {7 + number % 5} and closes at {16 + number % 4}."
    body = {
        "model": SERVED_MODEL,
        "messages": [
            {"role": "system", "content": "Answer from the documents."},
            {"role": "user", "content": f"{document}\n\nWhen does the museum of {topic} open?"},
        ],
        "temperature": 0,
        "max_tokens": 12,
        "logprobs": True,
        "vllm_xargs": request_field(documents=[{"id": f"note-{number}", "text": document}], route="museum"),
    }
    response = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=120, trust_env=False)
    assert response.status_code == httpx.codes.OK, response.text
    choice = response.json()["choices"][0]
    return choice["message"]["content"], [token["token"] for token in choice["logprobs"]["content"]]


def status(addresses: Addresses) -> dict[str, object]:
    found: dict[str, object] = httpx.get(f"{addresses.sidecar}/api/v1/status", timeout=10, trust_env=False).json()
    return found


def wait_for_frames(addresses: Addresses, at_least: int, seconds: float = 30.0) -> dict[str, object]:
    deadline = time.monotonic() + seconds
    while True:
        try:
            seen = status(addresses)
        except httpx.TransportError:
            seen = {}
        workers = seen.get("workers") or []
        if workers and workers[0]["frames_received"] >= at_least:  # type: ignore[index]
            return workers[0]  # type: ignore[index,no-any-return]
        assert time.monotonic() < deadline, f"no {at_least} frames within {seconds} s: {json.dumps(seen)[:500]}"
        time.sleep(0.2)


def wait_until_settled(addresses: Addresses, seconds: float = 30.0) -> dict[str, object]:
    """Return the worker's health once rows planned = sent + dropped + refused: nothing is under way any more."""
    deadline = time.monotonic() + seconds
    while True:
        worker = wait_for_frames(addresses, 0)
        counters = worker["status"]["counters"]  # type: ignore[index]
        if counters["rows_planned"] == counters["rows_sent"] + counters["rows_dropped"] + counters["rows_refused"]:
            return worker
        assert time.monotonic() < deadline, f"rows are unaccounted for: {counters}"
        time.sleep(0.5)


def test_tokens_are_the_same_with_capture_off_on_and_with_the_sidecar_killed(tmp_path: Path) -> None:
    """Forty greedy requests three times; the third time the sidecar is killed (SIGKILL) half way and started again."""
    model, addresses = prepare_model(), Addresses.free()
    config = tmp_path / "headwatch.toml"
    config.write_text(config_text(addresses, tmp_path / "store", None))
    environ = {**os.environ, "HEADWATCH_CONFIG": str(config)}
    engine = vllm_command(model, addresses)

    def vllm(name: str, **extra: str) -> Server:
        return Server("vLLM", engine, tmp_path / f"{name}.log", vllm_environ({**environ, **extra}))

    def sidecar() -> Server:
        command = [sys.executable, "-m", "headwatch.cli.main", "sidecar"]
        server = Server("the sidecar", command, tmp_path / "sidecar.log", environ)
        server.wait_until_healthy(f"{addresses.sidecar}/healthz", 60)
        return server

    with vllm("off", HEADWATCH_DISABLE="1") as server:
        server.wait_until_healthy(f"{addresses.vllm}/health", 300)
        off = [ask(addresses.vllm, number) for number in range(REQUESTS)]

    with vllm("on") as server, sidecar() as first:
        server.wait_until_healthy(f"{addresses.vllm}/health", 300)
        on = [ask(addresses.vllm, number) for number in range(REQUESTS)]
        before = wait_for_frames(addresses, REQUESTS)

        killed = [ask(addresses.vllm, number) for number in range(REQUESTS // 2)]
        victims = _below(first.pid)
        assert victims, f"the guard has no child, so there is no sidecar to kill: {first.log.read_text()[-500:]}"
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in victims):
            assert time.monotonic() < deadline, "a killed sidecar does not end"
            time.sleep(0.1)
        killed += [ask(addresses.vllm, number) for number in range(REQUESTS // 2, REQUESTS - 5)]
        with sidecar():
            killed += [ask(addresses.vllm, number) for number in range(REQUESTS - 5, REQUESTS)]
            wait_for_frames(addresses, int(before["frames_received"]) + 5)  # type: ignore[call-overload]
            after = wait_until_settled(addresses)
            counters = after["status"]["counters"]  # type: ignore[index]

    assert len(off) == REQUESTS
    assert on == off
    assert killed == off
    sent = counters["frames_sent"]
    received, missing = after["frames_received"], after["frames_missing"]
    assert received + missing >= sent, "frames that were sent and never arrived are counted as missing"  # type: ignore[operator]


def _below(pid: int) -> list[int]:
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found += [child, *_below(child)]
    return found
