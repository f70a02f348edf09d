"""The demo as a user runs it: real vLLM, the real model, the real sidecar."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.model

DEMO = [sys.executable, "-m", "headwatch.cli.main", "demo"]
KEYS = {"requests", "sampled_rows", "head_summaries", "dropped_frames", "otel_rows", "prometheus_samples", "phases",
        "incidents"}  # fmt: skip
PHASE_KEYS = {
    "name", "requests", "grounding_ratio_mean", "grounding_ratio_ci95", "document_mass_mean",
    "grounding_ratio_retrieval_heads_mean", "grounding_ratio_retrieval_heads_ci95",
}  # fmt: skip


def processes_in_session_of(demo: int) -> list[str]:
    """Return the command lines of what the demo's guards run: they carry the demo's id as their first argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(word.endswith("demo/guard.py") for word in words) and str(demo) in words:
            found.append(" ".join(words))
    return found


def apart(one: list[float] | None, other: list[float] | None) -> bool:
    return bool(one and other) and (one[1] < other[0] or other[1] < one[0])


@pytest.mark.timeout(1500)
def test_demo_tells_the_phases_apart(tmp_path: Path):
    """`headwatch demo --exit --json FILE` ends by itself with figures that say which phase was which."""
    run = subprocess.run([*DEMO, "--exit", "--json", str(tmp_path / "out.json"), "--dir", str(tmp_path / "work")],
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    result = json.loads((tmp_path / "out.json").read_text())
    assert result.keys() == KEYS
    assert all(phase.keys() == PHASE_KEYS for phase in result["phases"])
    assert result["requests"] >= 120
    assert result["dropped_frames"] == 0
    assert result["otel_rows"] > 0
    assert result["prometheus_samples"] > 0
    assert result["head_summaries"] == result["sampled_rows"] * 30 * 9
    healthy, wrong, down = result["phases"]
    assert [healthy["name"], wrong["name"], down["name"]] == ["healthy", "wrong_documents", "retrieval_down"]
    assert min(phase["requests"] for phase in result["phases"]) >= 40
    assert (apart(healthy["grounding_ratio_ci95"], wrong["grounding_ratio_ci95"])
            or apart(healthy["grounding_ratio_retrieval_heads_ci95"], wrong["grounding_ratio_retrieval_heads_ci95"]))
    assert {down[key] for key in PHASE_KEYS if key.endswith("_mean")} == {None}
    assert "<svg" in (tmp_path / "work" / "report.html").read_text()
    assert "retrieval down" in run.stdout, run.stdout
    opened = [(incident["phase"], incident["class"], incident["cause"]) for incident in result["incidents"]]
    assert [one[:2] for one in opened] == [("wrong_documents", "retrieval"), ("retrieval_down", "retrieval")], opened
    assert opened[1][2] == "documents_absent"
    assert all(incident["documents"] and incident["requests"] for incident in result["incidents"])
    assert all(1 <= incident["opened_after_windows"] <= 7 for incident in result["incidents"])
    assert result["incidents"][0]["id"] in run.stdout, "`incident show` of one is printed"
    assert "<svg" in (tmp_path / "work" / "incident.html").read_text()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [1.0, 12.0])
def test_ctrl_c_leaves_no_process(tmp_path: Path, seconds: float):
    """Whether it comes before the servers or while the engine loads."""
    demo = subprocess.Popen([*DEMO, "--exit", "--dir", str(tmp_path / "work")], stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, errors
    assert not processes_in_session_of(demo.pid)
    assert str(tmp_path / "work") not in _open_files()


def _open_files() -> str:
    """Return all paths that this user's processes hold open: a server that stayed behind holds its log."""
    paths = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            paths.append(str(link.readlink()))
        except OSError:
            continue
    return "\n".join(paths)
