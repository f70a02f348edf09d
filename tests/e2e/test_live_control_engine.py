"""Live control of a real vLLM server: front end and worker are processes of their own, and no token changes."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from headwatch.config_file import load
from headwatch.demo.processes import Server
from headwatch.demo.servers import SERVED_MODEL, Addresses, Control, config_text, vllm_command, vllm_environ

from ..integration.live_pair import Operator
from ..integration.tiny_models import build
from ..programs import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.engine

PROMPTS = [f"The ferry to island {number} leaves at a quarter past {number + 5}." for number in range(6)]
LONG_TOKENS = 1500


def complete(address: str, prompt: str, tokens: int = 16) -> list[str]:
    """Return the tokens of the greedy continuation of *prompt*."""
    body = {"model": SERVED_MODEL, "prompt": prompt, "temperature": 0, "max_tokens": tokens, "logprobs": 0, "ignore_eos": True}
    answer = httpx.post(f"{address}/v1/completions", json=body, timeout=240, trust_env=False)
    assert answer.status_code == 200, answer.text
    found: list[str] = answer.json()["choices"][0]["logprobs"]["tokens"]
    return found


class Pair:
    """A configuration that samples nothing, the operator's side of it, and what the sidecar says of its worker."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.addresses = folder, Addresses.free()
        path = folder / "headwatch.toml"
        text = config_text(self.addresses, folder / "store", None, Control.made(folder))
        path.write_text(text.replace("sample_rate = 1.0", "sample_rate = 0.0"))
        self.operator = Operator(load(path=str(path), environ={}).config)
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATCH_")}
        self.environ["HEADWATCH_CONFIG"] = str(path)

    def sidecar(self) -> Server:
        command = [sys.executable, "-m", "headwatch.cli.main", "sidecar"]
        server = Server("the sidecar", command, self.folder / "sidecar.log", self.environ)
        server.wait_until_healthy(f"{self.addresses.sidecar}/healthz", 60)
        return server

    def counters(self) -> dict[str, int]:
        answer = httpx.get(f"{self.addresses.sidecar}/api/v1/status", timeout=60, trust_env=False)
        found: dict[str, int] = answer.json()["workers"][0]["status"]["counters"]
        return found

    def followed(self, action: str, **what: Any) -> int:
        epoch: int = self.operator.change(action, **what)["epoch"]
        wait_for(lambda: (state := self.operator.show())["acknowledged"] == state["of"] == 1, "the worker to follow", 60)
        return epoch


@contextmanager
def generating(address: str) -> Iterator[list[list[str]]]:
    """Generate one long answer after the other until the block ends; yield the list that they join."""
    answers: list[list[str]] = []
    enough = threading.Event()

    def run() -> None:
        while not enough.is_set():
            answers.append(complete(address, PROMPTS[0], LONG_TOKENS))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield answers
    finally:
        enough.set()
        thread.join()


def test_a_running_server_is_switched_on_thinned_and_off_and_survives_its_sidecar(tmp_path: Path) -> None:
    """The file samples nothing, so every row comes from an order."""
    model, pair = build(tmp_path / "model", "gqa"), Pair(tmp_path)
    vllm_address, counters, followed = pair.addresses.vllm, pair.counters, pair.followed
    with Server("vLLM", vllm_command(model, pair.addresses), tmp_path / "vllm.log", vllm_environ(pair.environ)) as vllm:
        with pair.sidecar():
            vllm.wait_until_healthy(f"{vllm_address}/health", 300)
            plain = [complete(vllm_address, prompt) for prompt in PROMPTS]
            # Of some hundred steps a second, as many as a sidecar takes beside an engine that polls on both cores.
            followed("set", to={"sample_rate": 1.0, "step_stride": 16})
            assert counters()["requests"] == 0
            assert [complete(vllm_address, prompt) for prompt in PROMPTS] == plain
            wait_for(lambda: counters()["requests"] == len(PROMPTS), "every request to be sampled")

            before = counters()["sampled_steps"]
            with generating(vllm_address) as answers:
                wait_for(lambda: counters()["sampled_steps"] > before, "rows of a long request", 60)
                followed("off", why="in the middle of a request")
                at_off = counters()
                wait_for(lambda: counters()["steps"] >= at_off["steps"] + 100, "a hundred further steps", 60)
                assert counters()["sampled_steps"] == at_off["sampled_steps"], "and not one of them is sampled"
                epoch = followed("on")
                wait_for(lambda: counters()["sampled_steps"] > at_off["sampled_steps"], "rows again", 60)
            assert answers[0][:16] == plain[0]
            assert all(answer == answers[0] for answer in answers)
            wait_for(lambda: counters()["rows_planned"] == counters()["rows_sent"], "everything to arrive")

        with pair.sidecar():  # another life, which still orders the rate
            wait_for(lambda: pair.operator.show()["acknowledged"] == 1, "the worker to follow the next life", 60)
            assert pair.operator.show()["epoch"] > epoch
            requests = counters()["requests"]
            assert [complete(vllm_address, prompt) for prompt in PROMPTS] == plain
            wait_for(lambda: counters()["requests"] == requests + len(PROMPTS), "every request to be sampled")
            followed("reset")
            assert complete(vllm_address, PROMPTS[0], LONG_TOKENS) == answers[0]
            assert counters()["requests"] == requests + len(PROMPTS), "the file samples nothing"
        assert "headwatch live control: epoch" in vllm.log.read_text()
