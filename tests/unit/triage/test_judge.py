"""The judge: the product's own watch on recorded windows, and what counts as right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from headwatch.bench.triage import recording
from headwatch.bench.triage.judge import Outcome, Page, judged
from headwatch.bench.triage.report import BOUNDS, render, report_of
from headwatch.bench.triage.scenarios import SCENARIOS

from ..watch.scenes import TELEMETRY, window, with_canary

BASELINE, LEAD, CHANGED = 60, 3, 6


def outcome(scenario: str, expected: str, *pages: Page, split: str = "report", run: int = 1) -> Outcome:
    return Outcome(scenario, run, split, expected, list(pages), [], 10)


def page(drift_class: str, windows: int = 2) -> Page:
    return Page(drift_class, "cause", 0.9, None, "words", windows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return recordings of made-up windows: a quiet run, a lossy wire, another model, documents that vanish."""
    place = tmp_path_factory.mktemp("recordings")
    windows = [with_canary(window(number)) for number in range(BASELINE + LEAD + CHANGED)]
    lead, after = windows[BASELINE : BASELINE + LEAD], windows[BASELINE + LEAD :]
    recording.write(place / "baseline.history", windows[:BASELINE], {"scenario": "baseline", "run": 0, "split": "baseline"})
    changed = {
        "restart": after,
        "dropped_frames": [replace(item, telemetry={**TELEMETRY, "frames_missing_share": 0.3}) for item in after],
        "int8_weights": [with_canary(window(BASELINE + LEAD + place, heads_move=0.5), failed=True) for place in range(CHANGED)],
        "absent_documents": [
            with_canary(window(BASELINE + LEAD + place, documents_absent=1.0, document_mass=0.0)) for place in range(CHANGED)
        ],
    }
    recording.write(place / recording.lead_of(1), lead, {"scenario": "lead", "run": 1, "split": "development"})
    for name, found in changed.items():
        recording.write(place / recording.name_of(name, 1), found, {"scenario": name, "run": 1, "split": "development"})
    return place


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, Outcome]:
    expected = {scenario.name: scenario.expected for scenario in SCENARIOS}
    return {item.scenario: item for item in judged(folder, recording.names(folder), expected.__getitem__)}


def test_where_nothing_happens_nobody_is_woken(outcomes):
    assert outcomes["restart"].pages == []
    assert outcomes["restart"].right


@pytest.mark.parametrize(
    ("scenario", "drift_class"),
    [("dropped_frames", "telemetry"), ("int8_weights", "model"), ("absent_documents", "retrieval")],
)
def test_the_first_page_says_what_was_done_and_comes_after_it(outcomes, scenario: str, drift_class: str):
    found = outcomes[scenario]
    assert found.paged == drift_class
    assert 1 <= found.pages[0].windows <= CHANGED
    assert found.right


def test_a_page_before_the_change_is_false_whatever_it_says():
    assert not outcome("int4_weights", "model", page("model", 0)).right
    assert outcome("int4_weights", "model", page("model", 0)).false_page
    assert outcome("longer", "innocent", page("traffic")).false_page
    assert not outcome("int4_weights", "model").right


def test_the_report_counts_each_bar_as_it_says():
    found = [
        outcome("int8_weights", "model", page("model")), outcome("int4_weights", "model", page("retrieval")),
        outcome("injection", "injection"), outcome("longer", "innocent", page("retrieval")),
        outcome("shorter", "innocent", split="development"),
        outcome("other_language_unnamed", "innocent", page("retrieval")),
    ]  # fmt: skip
    report = report_of(found, 1000.0, {"window_requests": 6}, 1.0)
    assert report.bars == {"accuracy": 0.3333, "innocent_pages": 1.0, "missed": 1.0, "scenarios": 5.0, "runs": 1.0}
    assert report.bars.keys() == BOUNDS.keys()
    assert not report.passed
    assert report.confusion["model"] == {"model": 1, "retrieval": 1}
    assert report.confusion["injection"] == {"no page": 1}
    assert report.median_windows_to_page["int8_weights"] == 2.0
    assert "injection" not in report.median_windows_to_page
    text = render(report)
    assert "other_language_unnamed" in text
    assert "counts for no bar" in text


def test_a_report_that_keeps_every_bar_passes():
    found = [
        outcome(item.name, item.expected, *([] if item.expected == "innocent" else [page(item.expected)]), run=run)
        for item in SCENARIOS for run in (1, 2, 3)
    ]  # fmt: skip
    assert report_of(found, 1000.0, {}, 1.0).passed
