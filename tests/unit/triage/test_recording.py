"""Recordings: what is written comes back, and a run reads as one stretch of time."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwatch.bench.triage import recording
from headwatch.errors import CommandError
from headwatch.findings import CanaryExhibit
from headwatch.observed import ObservedRequest, ObservedWindow

SECOND = 1_000_000_000


def window(number: int, start: int) -> ObservedWindow:
    request = ObservedRequest("r", "e", "", start * SECOND + 5, "m", "hr", "measured", 0.5)
    canary = CanaryExhibit(start * SECOND + 7, "short", 0.0, 0.1, failed=False, earliest_layer=None)
    return ObservedWindow(number, start * SECOND, (start + 2) * SECOND, requests=(request,), canaries=(canary,))


def test_a_recording_comes_back_with_its_provenance(tmp_path: Path):
    path = tmp_path / recording.name_of("injection", 2)
    recording.write(path, [window(4, 10), window(5, 13)], {"scenario": "injection", "run": 2, "split": "development"})
    found = recording.read(path)
    assert found.windows == (window(4, 10), window(5, 13))
    assert found.meta == {"scenario": "injection", "run": 2, "split": "development"}
    assert [item.name for item in tmp_path.iterdir()] == [path.name], "nothing is left beside it"


def test_writing_again_replaces_what_was_there(tmp_path: Path):
    path = tmp_path / "baseline.history"
    for count in (3, 2):
        recording.write(path, [window(number, 3 * number) for number in range(count)], {})
    assert len(recording.read(path).windows) == 2


def test_parts_become_one_stretch_of_time():
    """Numbers ascend by one, a part ends where the next begins, and what is inside a window moves with it."""
    lead = [window(40, 1000), window(41, 1003)]
    change = [window(90, 5000), window(91, 5002)]
    joined = recording.joined(lead, change)
    assert [item.number for item in joined] == [0, 1, 2, 3]
    assert joined[1].end_ns == joined[2].start_ns == change[0].start_ns
    assert joined[1].start_ns - joined[0].end_ns == lead[1].start_ns - lead[0].end_ns
    for item in joined:
        assert item.requests[0].time_ns - item.start_ns == 5
        assert item.canaries[0].time_ns - item.start_ns == 7


def test_a_run_stands_behind_its_lead(tmp_path: Path):
    recording.write(tmp_path / recording.lead_of(3), [window(0, 0)], {"scenario": "lead", "run": 3, "split": "report"})
    recording.write(tmp_path / "restart-3.history", [window(9, 50)], {"scenario": "restart", "run": 3, "split": "report"})
    recording.write(tmp_path / "baseline.history", [window(0, 0)], {"scenario": "baseline", "run": 0, "split": "baseline"})
    assert recording.names(tmp_path) == ["restart-3.history"]
    run = recording.run_of(tmp_path, "restart-3.history")
    assert (run.scenario, run.number, run.split, run.lead, len(run.windows)) == ("restart", 3, "report", 1, 2)


def test_a_folder_without_recordings_says_how_to_make_them(tmp_path: Path):
    with pytest.raises(CommandError, match="headwatch bench triage --record"):
        recording.names(tmp_path)
