"""Faults inside capture in a real vLLM: tokens as without headwatch, the fault visible, capture back where promised."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = pytest.mark.engine

OPENS_THE_BREAKER = (
    "the start of a step", "the plan", "out of memory", "the pages of a layer", "the kernel", "another core",
    "the end of a step",
)
REFUSES_LAYERS = ("wrong layout", "NaN in K")
STAYS_UP = ("the front end", "full queue", "dead sidecar", "blocked socket", "clock jump")


def run(mode: str, model: Path, folder: Path):
    done = subprocess.run(
        [sys.executable, str(HERE / "faults_script.py"), mode, str(model), str(folder)],
        check=False, capture_output=True, text=True, timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("tiny_models", HERE.parent / "integration" / "tiny_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build(tmp_path_factory.mktemp("gqa"), "gqa")


@pytest.fixture(scope="module")
def faulty(model: Path, tmp_path_factory: pytest.TempPathFactory):
    return run("faults", model, tmp_path_factory.mktemp("faults"))


def test_every_token_is_as_without_headwatch(model: Path, faulty, tmp_path: Path) -> None:
    """29 waves of greedy requests: 14 under a fault, 15 without one."""
    plain = run("plain", model, tmp_path)["tokens"]
    assert len(plain) == 29
    assert faulty["tokens"] == plain


@pytest.mark.parametrize("name", OPENS_THE_BREAKER)
def test_repeated_exceptions_open_the_breaker_and_it_closes_again(faulty, name: str) -> None:
    during, after = faulty["faults"][name]["during"], faulty["faults"][name]["after"]
    assert not during["up"]
    assert "injected" in during["reason"]
    assert sum(during["errors"].values()) >= 3
    assert after["up"]
    assert after["reason"] == ""
    assert faulty["faults"][name]["rows_after"] > 0


@pytest.mark.parametrize("name", REFUSES_LAYERS)
def test_what_is_read_wrongly_is_refused(faulty, name: str) -> None:
    during = faulty["faults"][name]["during"]
    assert not during["up"]
    assert len(during["refused"]) == 3
    assert all(reason.startswith("self_check") for reason in during["refused"].values())


@pytest.mark.parametrize("name", STAYS_UP)
def test_what_does_not_harm_capture_leaves_it_up(faulty, name: str) -> None:
    found = faulty["faults"][name]
    assert found["during"]["up"]
    assert found["after"]["up"]
    assert found["rows_after"] > 0
    if name in {"full queue", "blocked socket"}:
        assert found["after"]["counters"]["rows_dropped"] > 0


def test_rows_are_accounted_for_through_all_of_it(faulty) -> None:
    for name, found in faulty["faults"].items():
        assert found["after"]["balance"] == 0, name
    counters = found["after"]["counters"]
    assert counters["rows_planned"] == counters["rows_sent"] + counters["rows_dropped"] + counters["rows_refused"]
    assert found["after"]["received"] >= 0.5 * counters["rows_sent"], "what was sent to the living arrived"
