"""``headwatch canary``: exit codes that CI can act on, one JSON document on stdout, and a sentence where it cannot be done."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest

from headwatch.canary.collector import Collector
from headwatch.canary.fingerprint import learn, load, save
from headwatch.canary.runner import CanaryRunner
from headwatch.cli.main import main
from headwatch.config import CanaryConfig
from headwatch.console.app import create_app
from headwatch.console.server import HttpServer
from headwatch.console.static import StaticView
from headwatch.demo.processes import free_ports

from ..sidecars import health
from .models import PROMPTS, ServedModel, run, serving
from .test_runner import FILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "a-token-of-32-characters-or-more"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Take back what the command does to the root logger."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in [item for item in root.handlers if item not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Write fingerprints of production, of the same model again, and of one with another template."""
    fewer = run()
    for item in fewer.signatures.values():
        item.values[:, 2] = np.nan
    for name, found in (("production", run()), ("same", run()), ("other", run(prompt_tokens=21)), ("fewer", fewer)):
        save(learn([found] * 3, PROMPTS, 7, name), tmp_path / name)
    return {path.name: str(path) for path in tmp_path.iterdir()}


class Sidecar:
    """A sidecar's HTTP port over a runner and a served model."""

    def __init__(self, folder: Path, model: ServedModel) -> None:
        (folder / "prompts.toml").write_text('version = "test-1"\n' + FILE)
        (folder / "token").write_text(TOKEN)
        (folder / "token").chmod(0o600)
        config = CanaryConfig(endpoint=model.url, interval_seconds=3600.0, prompts=str(folder / "prompts.toml"))
        self.model = model
        self.runner = CanaryRunner(config, model.collector, folder / "fingerprints")
        self.server = HttpServer(create_app(StaticView(health()), token=TOKEN.encode(), canary=self.runner), "127.0.0.1", 0)
        self.server.start()
        self.runner.start()
        self.arguments = ["--url", f"http://127.0.0.1:{self.server.port}"]
        self.token = ["--token-file", str(folder / "token")]

    def stop(self) -> None:
        self.runner.stop()
        self.server.stop()


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    with serving(ServedModel(Collector())) as model:
        found = Sidecar(tmp_path, model)
        yield found
        found.stop()


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["canary", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_compare_says_by_its_exit_code_whether_two_fingerprints_are_of_one_model(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = called(capsys, "compare", files["production"], files["same"])
    assert (code, "The model that was pinned" in out) == (0, True)
    code, out, _ = called(capsys, "compare", "--json", files["production"], files["other"])
    found = json.loads(out)
    assert (code, found["failed"], found["hint"], len(found["exhibits"])) == (1, True, "template", 3)
    code, out, _ = called(capsys, "compare", files["production"], files["fewer"])
    assert (code, "no verdict" in out, "layers 2:" in out) == (1, True, True), "a layer of the candidate is not captured"
    assert called(capsys, "compare", files["fewer"], files["production"])[0] == 0
    code, out, _ = called(capsys, "explain", files["production"], files["other"])
    assert (code, "It looks like: template." in out) == (0, True), "explaining is no verdict"


def test_what_is_no_fingerprint_is_one_sentence_and_no_output(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none").write_text("{}")
    wrong = [
        ("compare", files["production"], str(tmp_path / "none")),
        ("compare", "--json", str(tmp_path / "missing"), files["same"]),
        ("explain", files["production"]),
        ("run", "--endpoint", "http://x"),
    ]
    for arguments in wrong:
        code, out, err = called(capsys, *arguments)
        assert (code, out, err.count("headwatch: error:")) == (1, "", 1)


def test_pin_run_and_explain_through_a_running_sidecar(
    sidecar: Sidecar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out_file = tmp_path / "out" / "release.json"
    pin = ("pin", "--json", "--runs", "2", "--note", "release 4", "--out", str(out_file))
    code, out, _ = called(capsys, *pin, *sidecar.arguments, *sidecar.token)
    assert (code, json.loads(out)["runs"]) == (0, 2)
    assert load(out_file).note == "release 4"
    code, out, _ = called(capsys, "run", *sidecar.arguments, *sidecar.token)
    assert (code, out.splitlines()[0].startswith("The model that was pinned, to rounding: 3 prompts")) == (0, True)
    sidecar.model.change = 0.1
    code, out, _ = called(capsys, "run", *sidecar.arguments, *sidecar.token, "--json")
    assert (code, json.loads(out)["failed"]) == (1, True)
    code, out, _ = called(capsys, "explain", *sidecar.arguments)
    assert (code, out.startswith("NOT the model that was pinned")) == (0, True)
    sidecar.model.status = 503
    code, out, err = called(capsys, "run", *sidecar.arguments, *sidecar.token)
    assert (code, out, "which is no drift" in err) == (1, "", True)


def test_a_run_that_is_not_whole_is_no_agreement_and_a_pin_that_failed_is_no_pin(
    sidecar: Sidecar, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(capsys, "pin", "--runs", "1", "--note", "release 4", *sidecar.arguments, *sidecar.token)[0] == 0
    sidecar.model.refuses = "two"
    code, out, _ = called(capsys, "run", *sidecar.arguments, *sidecar.token)
    assert (code, "no verdict: 2 of 3 prompts" in out, "Not compared:\n  two: " in out) == (1, True, True)
    code, out, err = called(capsys, "pin", "--runs", "1", "--note", "release 5", *sidecar.arguments, *sidecar.token)
    assert (code, out, "400" in err) == (1, "", True), "the fingerprint in force is not the one that was asked for"
    sidecar.model.status = 503
    code, out, err = called(capsys, "run", *sidecar.arguments, *sidecar.token)
    assert (code, out, "503" in err) == (1, "", True), "and an earlier comparison is not what was asked for"


def test_without_the_token_nothing_is_ordered(sidecar: Sidecar, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, "run", *sidecar.arguments)
    assert (code, out, "401" in err) == (1, "", True)
    assert sidecar.runner.show()["ordered"] == 0


def test_alone_it_says_that_no_worker_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "headwatch.toml"
    config.write_text(f'[wire]\nendpoint = "tcp://127.0.0.1:{free_ports(1)[0]}"\n[store]\nurl = "chdb://{tmp_path}/store"\n')
    alone = ("run", "--stand-alone", "--config", str(config), "--endpoint", "http://127.0.0.1:9", "--wait", "0.1")
    code, out, err = called(capsys, *alone)
    assert (code, out, "no worker reports" in err) == (1, "", True)
    code, _, err = called(capsys, "pin", "--stand-alone", "--config", str(config))
    assert (code, "canary.endpoint is empty" in err) == (2, True)
