"""The recordings that ship: complete, small enough, of known origin, and judged as the committed result says."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from headwatch.bench.triage import recording
from headwatch.bench.triage.record import BASELINE_WINDOWS, LEAD_WINDOWS, RUNS
from headwatch.bench.triage.scenarios import SCENARIOS

ROOT = Path(__file__).parents[3]
FOLDER = recording.packaged()
RESULT = json.loads((ROOT / "benchmarks" / "results" / "triage.json").read_text())


def test_every_run_of_every_scenario_ships():
    wanted = {recording.name_of(scenario.name, run) for scenario in SCENARIOS for run in range(1, RUNS + 1)}
    assert set(recording.names(FOLDER)) == wanted
    assert sum(path.stat().st_size for path in FOLDER.glob("*")) < 25 * 1024 * 1024
    assert len(recording.read(FOLDER / "baseline.history").windows) == BASELINE_WINDOWS
    assert all(len(recording.read(FOLDER / recording.lead_of(run)).windows) == LEAD_WINDOWS for run in range(1, RUNS + 1))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_recording_is_as_long_as_the_table_says_and_names_its_origin(scenario):
    for run in range(1, RUNS + 1):
        found = recording.read(FOLDER / recording.name_of(scenario.name, run))
        assert len(found.windows) >= scenario.windows
        assert found.meta["scenario"] == scenario.name
        assert found.meta["expected"] == scenario.expected
        assert found.meta["run"] == run
        assert {"model", "seed", "machine", "command", "recorded", "window_requests"} <= found.meta.keys()


def test_recordings_hold_no_text_of_questions_or_documents():
    """Ids, figures and times alone: a word that documents and injections are full of is in none of the files."""
    for name in ("injection-1.history", "baseline.history"):
        for window in recording.read(FOLDER / name).windows:
            text = repr((window.requests, window.traffic, window.canaries, window.deploys))
            assert "Ignore" not in text
            assert "Larkfield" not in text


def test_the_committed_result_keeps_its_bars():
    assert RESULT["passed"]
    assert len(RESULT["outcomes"]) == len(SCENARIOS) * RUNS


def test_the_page_shows_the_committed_result():
    """Commit a result, then run `python -m benchmarks.triage_page`."""
    sys.path.insert(0, str(ROOT))
    try:
        page = importlib.import_module("benchmarks.triage_page")
    finally:
        sys.path.pop(0)
    text = page.PAGE.read_text()
    assert text == page.page()
    for scenario in SCENARIOS:
        assert f"| `{scenario.name}` |" in text
