"""The runner: it pins by itself, finds a change in one run, and a server that is away is no drift."""

from __future__ import annotations

import json
import logging
import socket
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import httpx
import msgspec
import numpy as np
import pytest

from headwatch.canary.client import CanaryClient
from headwatch.canary.collector import Collector
from headwatch.canary.companions import COMPANIONS
from headwatch.canary.fingerprint import Fingerprint, learn
from headwatch.canary.pinning import EXACT_RUNS, NOISY_RUNS
from headwatch.canary.prompts import BUILT_IN
from headwatch.canary.runner import CanaryRunner
from headwatch.canary.send import send_all
from headwatch.config import CanaryConfig
from headwatch.console.app import create_app
from headwatch.console.server import HttpServer
from headwatch.console.static import StaticView
from headwatch.errors import CanaryError, ConfigError
from headwatch.health import CANARY_REASONS

from ...programs import wait_for
from ..sidecars import health
from .models import PROMPTS, ServedModel, run, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwatch.canary.compare import Comparison

TOKEN = b"a-token-of-32-characters-or-more"
FILE = "".join(
    f'[[prompt]]\nname = "{item.name}"\nmessages = [{{ role = "user", content = "{item.name}" }}]\n' for item in PROMPTS.prompt
)


class Watched:
    """A runner over a served model, with what it reported."""

    def __init__(self, model: ServedModel, folder: Path, **settings: object) -> None:
        prompts = folder / "prompts.toml"
        prompts.write_text('version = "test-1"\n' + FILE)
        self.results: list[Comparison] = []
        self.model = model
        given: dict[str, object] = {"endpoint": model.url, "interval_seconds": 0.02, "prompts": str(prompts)}
        config = CanaryConfig(**(given | settings))  # type: ignore[arg-type]
        self.runner = CanaryRunner(config, model.collector, folder / "fingerprints", lambda: 7, on_result=self.results.append)


@contextmanager
def watched(folder: Path, dtype: str = "float32", **settings: object) -> Iterator[Watched]:
    with serving(ServedModel(Collector(), dtype=dtype)) as model:
        found = Watched(model, folder, **settings)
        found.runner.start()
        try:
            yield found
        finally:
            found.runner.stop()


def test_it_pins_by_itself_says_so_and_then_finds_a_change_in_one_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headwatch.canary")
    with watched(tmp_path) as seen:
        wait_for(lambda: len(seen.results) >= 2, "two comparisons")
        assert [record.message for record in caplog.records if "pinned by itself" in record.message]
        assert not any(result.failed for result in seen.results)
        state = seen.runner.health()
        assert (state.state, state.fingerprint and state.fingerprint.runs) == ("watching", EXACT_RUNS)
        assert state.failures == dict.fromkeys(CANARY_REASONS, 0)
        assert (state.runs >= EXACT_RUNS + 2, state.completed_ns) == (True, 7), "runs that pinned count, too"
        assert state.deviation == {"one": 0.0, "two": 0.0, "three": 0.0}
        change = np.zeros((8, 6, 4, 6))
        change[:, 3:] = 1e-3
        before = len(seen.results)
        seen.model.change = change
        wait_for(lambda: any(result.failed for result in seen.results), "the change")
        first = next(number for number, result in enumerate(seen.results) if result.failed)
        assert first <= before + 1, "the first whole run with it, at most one after the run that was under way"
        assert (seen.results[-1].hint, seen.results[-1].earliest_layer) == ("weights", 3)
        assert seen.runner.health().departures >= 1


def test_a_server_that_is_away_or_a_worker_that_is_silent_is_a_failure_and_no_drift(tmp_path: Path) -> None:
    with watched(tmp_path) as seen:
        wait_for(lambda: bool(seen.results), "a comparison")
        seen.model.status = 503
        wait_for(lambda: seen.runner.health().state == "failing", "the failure")
        assert "503" in seen.runner.health().error
        seen.model.status = 200
        wait_for(lambda: seen.runner.health().state == "watching", "the server to be back")
        counts = seen.runner.counts()
        assert counts.failures["refused"] >= 1
        assert sum(counts.failures.values()) == counts.failures["refused"], "each failed run counts once"
        assert not any(result.failed for result in seen.results)


def test_in_16_bits_it_pins_from_twenty_runs_half_of_them_in_company_and_believes_no_single_run(tmp_path: Path) -> None:
    with watched(tmp_path, dtype="bfloat16") as seen:
        wait_for(lambda: bool(seen.results), "a comparison", 60)
        pinned = json.loads(seen.runner.fingerprint())
        assert (pinned["runs"], pinned["noise"]) == (NOISY_RUNS, None), "a model without noise shows none in company either"
        fillers = [body for body in seen.model.bodies if json.loads(body["vllm_xargs"]["headwatch"])["capture"] is False]
        assert len(fillers) >= COMPANIONS * NOISY_RUNS / 4
        assert all(json.loads(body["vllm_xargs"]["headwatch"])["canary"] for body in fillers), "marked: they count nowhere"
        seen.model.glitches, seen.model.change = len(PROMPTS.prompt), 0.01
        wait_for(lambda: any(result.note for result in seen.results), "a run that departs alone")
        assert not any(result.failed for result in seen.results), "it was repeated first"
        seen.model.glitches = None
        wait_for(lambda: seen.results[-1].failed, "a change that stays")


def test_an_order_pins_anew_and_a_change_is_the_model_then(tmp_path: Path) -> None:
    with watched(tmp_path, interval_seconds=3600.0) as seen:
        runner = seen.runner
        assert runner.order_pin(2, "release 5")["ordered"] == 1
        wait_for(lambda: runner.show()["done"] >= 1, "the first pin")
        seen.model.change = 0.1
        runner.order_run()
        wait_for(lambda: runner.show()["done"] >= 2, "a run")
        assert runner.latest is not None
        assert runner.latest.failed
        runner.order_pin(1, "release 6")
        wait_for(lambda: runner.show()["done"] >= 3, "the second pin")
        runner.order_run()
        wait_for(lambda: runner.show()["done"] >= 4, "a run")
        assert runner.latest is not None
        assert not runner.latest.failed
        facts = runner.health().fingerprint
        assert facts is not None
        assert (facts.note, facts.runs) == ("release 6", 1)
        with pytest.raises(CanaryError, match="give 1 to"):
            runner.order_pin(0, "")


def test_an_order_that_fails_leaves_the_fingerprint_in_force(tmp_path: Path) -> None:
    with watched(tmp_path, interval_seconds=3600.0) as seen:
        runner = seen.runner
        runner.order_pin(1, "good")
        wait_for(lambda: runner.show()["done"] >= 1, "the pin")
        seen.model.status = 500
        number = runner.order_pin(3, "bad")["ordered"]
        wait_for(lambda: runner.show()["done"] >= number, "the failure")
        assert runner.health().state == "failing"
        seen.model.status = 200
        number = runner.order_run()["ordered"]
        wait_for(lambda: runner.show()["done"] >= number, "a run")
        assert runner.health().state == "watching"
        assert json.loads(runner.fingerprint())["note"] == "good"


def test_an_order_says_nothing_of_the_run_that_was_under_way_when_it_came(tmp_path: Path) -> None:
    """That run fails: what was ordered is pinned all the same, and who waits for it can tell by its number."""
    with watched(tmp_path, interval_seconds=3600.0) as seen:
        runner = seen.runner
        runner.order_pin(1, "release 5")
        wait_for(lambda: runner.show()["done"] >= 1, "the first pin")
        asked, gate = threading.Event(), threading.Event()
        answer = runner._client.model

        def late() -> str:
            if asked.is_set():
                return answer()
            asked.set()
            gate.wait(10)
            raise CanaryError("timed_out", "no answer in time")

        runner._client.model = late  # type: ignore[method-assign]
        runner.order_run()
        asked.wait(10)
        seen.model.change = 0.1
        number = runner.order_pin(1, "release 6")["ordered"]
        gate.set()
        wait_for(lambda: runner.show()["done"] >= number, "the second pin")
        assert runner.show()["pinned"] == number
        assert json.loads(runner.fingerprint())["note"] == "release 6"
        assert runner.health().error == ""


def test_after_an_accepted_change_it_pins_anew_however_many_runs_fail(tmp_path: Path) -> None:
    """The server is restarting at that instant; and a person's order that fails in between takes nothing back."""
    with watched(tmp_path) as seen:
        wait_for(lambda: bool(seen.results), "a comparison")
        seen.model.change, seen.model.status = 0.1, 503
        seen.runner.owe_pin()
        failures = seen.runner.counts().failures["refused"]
        wait_for(lambda: seen.runner.counts().failures["refused"] >= failures + 3, "runs that fail")
        number = seen.runner.order_pin(1, "a person's")["ordered"]
        wait_for(lambda: seen.runner.show()["done"] >= number, "the person's order")
        assert seen.runner.show()["pinned"] == 0
        before = len(seen.results)
        seen.model.status = 200
        wait_for(lambda: len(seen.results) > before, "comparisons with the new fingerprint")
        assert not any(result.failed for result in seen.results[before:])
        facts = seen.runner.health().fingerprint
        assert facts is not None
        assert (facts.note, facts.runs) == ("a change that was accepted", EXACT_RUNS)


def test_what_is_owed_after_an_accepted_change_is_pinned_after_a_restart_and_once(tmp_path: Path) -> None:
    with serving(ServedModel(Collector())) as model:
        lives = [Watched(model, tmp_path) for _ in range(3)]
        first, second, third = lives
        first.runner.start()
        wait_for(lambda: bool(first.results), "a comparison")
        model.change, model.status = 0.1, 503
        first.runner.owe_pin()
        wait_for(lambda: first.runner.health().state == "failing", "the failure")
        first.runner.stop()
        model.status = 200
        second.runner.start()
        wait_for(lambda: bool(second.results), "a comparison after the restart")
        second.runner.stop()
        assert not any(result.failed for result in second.results)
        model.change = 0.2
        third.runner.start()
        wait_for(lambda: bool(third.results), "a comparison after another restart")
        third.runner.stop()
        assert third.results[0].failed, "nothing is owed any more"


@pytest.mark.parametrize("owed", [False, True])
def test_in_16_bits_an_ordered_pin_waits_for_no_interval(tmp_path: Path, *, owed: bool) -> None:
    with watched(tmp_path, dtype="bfloat16", interval_seconds=3600.0) as seen:
        if owed:
            seen.runner.order_pin(8, "before")
            wait_for(lambda: seen.runner.show()["pinned"] == 1, "the first pin")
            seen.runner.owe_pin()
        else:
            seen.runner.order_pin(None, "release 7")
        wait_for(lambda: facts_of(seen).runs == NOISY_RUNS, "the pin", 60)
        assert facts_of(seen).note == ("a change that was accepted" if owed else "release 7")


def facts_of(seen: Watched) -> Fingerprint:
    try:
        return msgspec.json.decode(seen.runner.fingerprint(), type=Fingerprint)
    except CanaryError:
        return learn([run()], PROMPTS, 0)


def test_over_http_reading_is_open_and_orders_need_the_token(tmp_path: Path) -> None:
    with watched(tmp_path, interval_seconds=3600.0) as seen:
        server = HttpServer(create_app(StaticView(health()), token=TOKEN, canary=seen.runner), "127.0.0.1", 0)
        server.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
                assert client.get("/api/v1/canary").json()["health"]["endpoint"] == seen.model.url
                assert client.post("/api/v1/canary/run", json={}).status_code == 401
                bearer = {"Authorization": f"Bearer {TOKEN.decode()}"}
                assert client.post("/api/v1/canary/pin", json={"runs": 0}, headers=bearer).status_code == 400
                assert client.post("/api/v1/canary/pin", json={"rums": 1}, headers=bearer).status_code == 400
                assert client.post("/api/v1/canary/pin", json={"runs": 1, "note": "n"}, headers=bearer).json()["ordered"] == 1
                wait_for(lambda: client.get("/api/v1/canary").json()["done"] >= 1, "the pin")
                assert client.get("/api/v1/canary/fingerprint").json()["note"] == "n"
                assert client.post("/api/v1/canary/run", json={}, headers=bearer).json()["ordered"] == 2
                wait_for(lambda: client.get("/api/v1/canary").json()["done"] >= 2, "the run")
                assert client.get("/api/v1/canary").json()["latest"]["failed"] is False
        finally:
            server.stop()


def test_a_sidecar_without_canaries_says_so() -> None:
    server = HttpServer(create_app(StaticView(health()), token=TOKEN), "127.0.0.1", 0)
    server.start()
    try:
        answer = httpx.get(f"http://127.0.0.1:{server.port}/api/v1/canary")
        assert (answer.status_code, "canary.endpoint" in answer.text) == (409, True)
    finally:
        server.stop()


def test_a_request_is_what_a_user_would_send_marked_greedy_salted_and_short() -> None:
    with serving(ServedModel(Collector())) as model, CanaryClient(CanaryConfig(endpoint=model.url)) as client:
        assert client.model() == "served"
        for _ in range(2):
            client.send(BUILT_IN.prompt[2], "served")
        first, second = model.bodies
        assert (first["max_tokens"], first["temperature"], first["model"]) == (1, 0, "served")
        assert first["cache_salt"] != second["cache_salt"]
        field = json.loads(first["vllm_xargs"]["headwatch"])
        assert (field["canary"], field["capture"], field["route"]) == ("document", "full", "headwatch.canary")
        assert field["documents"][0]["id"] == "ferry"
        assert field["documents"][0]["text"] in first["messages"][1]["content"]


def test_the_key_of_the_server_is_sent_and_shown_nowhere(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-a-secret-key-of-the-server")
    key.chmod(0o600)
    with serving(ServedModel(Collector(), status=401)) as model:
        config = CanaryConfig(endpoint=model.url, api_key_file=str(key))
        with CanaryClient(config) as client, pytest.raises(CanaryError) as raised:
            client.send(BUILT_IN.prompt[0], "served")
        assert model.headers[0]["Authorization"] == "Bearer sk-a-secret-key-of-the-server"
    assert "sk-a-secret" not in str(raised.value) + repr(config) + repr(client)


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://model.example.org"])
def test_an_endpoint_that_is_none_or_leaves_loopback_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"canary\.endpoint"):
        CanaryClient(CanaryConfig(endpoint=endpoint))


def test_a_server_that_is_not_there_is_asked_once_and_not_for_every_prompt() -> None:
    with CanaryClient(CanaryConfig(endpoint="http://127.0.0.1:9", model="m")) as client:
        found = send_all(client, Collector(), PROMPTS, lambda: 5)
    assert (found.signatures, set(found.failures)) == ({}, {"one", "two", "three"})
    assert "ConnectError" in found.failures["three"]
    assert (found.reason, found.away) == ("unreachable", True)


def test_rows_that_do_not_arrive_are_a_failure_of_their_prompt() -> None:
    collector = Collector()
    with serving(ServedModel(collector, silent=True)) as model, CanaryClient(CanaryConfig(endpoint=model.url)) as client:
        found = send_all(client, collector, PROMPTS, lambda: 5, rows_seconds=0.01)
    assert "no rows" in found.failures["one"]
    assert (found.reason, found.away) == ("rows", False)


def test_a_server_that_does_not_answer_in_time_is_told_from_one_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # it takes connections and says nothing
        config = CanaryConfig(endpoint=f"http://127.0.0.1:{listening.getsockname()[1]}", model="m", timeout_seconds=0.05)
        with CanaryClient(config) as client:
            found = send_all(client, Collector(), PROMPTS, lambda: 5)
    assert (found.reason, found.away, set(found.failures)) == ("timed_out", True, {"one", "two", "three"})


def test_a_server_to_which_no_connection_comes_about_is_one_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, ExitStack() as waiting:
        for _ in range(4):  # nobody takes these, and beyond them Linux drops who knocks
            knocking = waiting.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(listening.getsockname())
        config = CanaryConfig(endpoint=f"http://127.0.0.1:{listening.getsockname()[1]}", model="m", timeout_seconds=0.05)
        with CanaryClient(config) as client:
            found = send_all(client, Collector(), PROMPTS, lambda: 5)
    assert "ConnectTimeout" in found.failures["three"]
    assert (found.reason, found.away) == ("unreachable", True)


def test_a_fingerprint_that_cannot_be_read_is_a_failure_of_its_own(tmp_path: Path) -> None:
    with watched(tmp_path, fingerprint=str(tmp_path / "nowhere.json")) as seen:
        wait_for(lambda: seen.runner.counts().failures["fingerprint"] >= 1, "the failure")
        assert (seen.runner.counts().runs, seen.model.bodies) == (0, []), "nothing was sent"
        assert seen.runner.counts().started_ns == 7
