"""Live control of a real vLLM server: front end and worker are processes of their own, and no token changes."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from headwatch.config import load
from headwatch.demo.processes import Server
from headwatch.demo.servers import SERVED_MODEL, Addresses, Control, config_text, vllm_command, vllm_environ

from ..integration.live_pair import Operator
from ..integration.tiny_models import build
from ..programs import wait_for

if TYPE_CHECKING:
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


def test_a_running_server_is_switched_on_thinned_and_off_and_survives_its_sidecar(tmp_path: Path) -> None:
    """The file samples nothing, so every row comes from an order."""
    model, addresses = build(tmp_path / "model", "gqa"), Addresses.free()
    path = tmp_path / "headwatch.toml"
    text = config_text(addresses, tmp_path / "store", None, Control.made(tmp_path))
    path.write_text(text.replace("sample_rate = 1.0", "sample_rate = 0.0"))
    operator = Operator(load(path=str(path), environ={}).config)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATCH_")}
    environ["HEADWATCH_CONFIG"] = str(path)

    def sidecar() -> Server:
        command = [sys.executable, "-m", "headwatch.cli.main", "sidecar"]
        server = Server("the sidecar", command, tmp_path / "sidecar.log", environ)
        server.wait_until_healthy(f"{addresses.sidecar}/healthz", 60)
        return server

    def counters() -> dict[str, int]:
        state: dict[str, Any] = httpx.get(f"{addresses.sidecar}/api/v1/status", trust_env=False).json()
        found: dict[str, int] = state["workers"][0]["status"]["counters"]
        return found

    def followed(action: str, **what: Any) -> int:
        epoch: int = operator.change(action, **what)["epoch"]
        wait_for(lambda: (state := operator.show())["acknowledged"] == state["of"] == 1, "the worker to follow")
        return epoch

    with Server("vLLM", vllm_command(model, addresses), tmp_path / "vllm.log", vllm_environ(environ)) as vllm:
        with sidecar():
            vllm.wait_until_healthy(f"{addresses.vllm}/health", 300)
            plain = [complete(addresses.vllm, prompt) for prompt in PROMPTS]
            followed("set", to={"sample_rate": 1.0})
            assert counters()["requests"] == 0
            assert [complete(addresses.vllm, prompt) for prompt in PROMPTS] == plain
            wait_for(lambda: counters()["requests"] == len(PROMPTS), "every request to be sampled")

            answers: list[list[str]] = []
            long = threading.Thread(target=lambda: answers.append(complete(addresses.vllm, PROMPTS[0], LONG_TOKENS)))
            long.start()
            before = counters()["sampled_steps"]
            wait_for(lambda: counters()["sampled_steps"] > before, "rows of the long request")
            followed("off", why="in the middle of a request")
            at_off = counters()
            wait_for(lambda: counters()["steps"] >= at_off["steps"] + 100, "a hundred further steps of it", 60)
            assert counters()["sampled_steps"] == at_off["sampled_steps"], "and not one of them is sampled"
            epoch = followed("on")
            wait_for(lambda: counters()["sampled_steps"] > at_off["sampled_steps"], "rows again", 60)
            long.join()
            assert answers[0][:16] == plain[0]

        with sidecar():  # another life, which still orders the rate
            wait_for(lambda: operator.show()["acknowledged"] == 1, "the worker to follow the next life", 60)
            assert operator.show()["epoch"] > epoch
            requests = counters()["requests"]
            assert [complete(addresses.vllm, prompt) for prompt in PROMPTS] == plain
            wait_for(lambda: counters()["requests"] == requests + len(PROMPTS), "every request to be sampled")
            followed("reset")
            assert complete(addresses.vllm, PROMPTS[0], LONG_TOKENS) == answers[0]
            assert counters()["requests"] == requests + len(PROMPTS), "the file samples nothing"
        assert "headwatch live control: epoch" in vllm.log.read_text()
