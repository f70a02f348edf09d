"""Recordings from the frames that were kept: the same windows as the sidecar saw, and a clear word where there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from headwatch.bench.triage import recording, tape
from headwatch.bench.triage.observe import observe_again, observed
from headwatch.bench.triage.stage import WINDOW_REQUESTS
from headwatch.bench.triage.tape import TAPE
from headwatch.errors import CommandError
from headwatch.findings import CanaryExhibit
from headwatch.wire import codec

from ..frames import SECOND, context, summary

REQUESTS = 2 * WINDOW_REQUESTS
CANARY = CanaryExhibit(104 * SECOND, "short", 0.0, 0.1, failed=False, earliest_layer=None)


def frames() -> list[tuple[int, bytes]]:
    """One request a second, each with its last prompt row and its end in one frame, and something that is no frame."""
    made = [(100 * SECOND, b"nothing of ours")]
    for number in range(REQUESTS):
        time_ns = (100 + number) * SECOND
        frame = summary(
            [(9, {"entropy": 0.5}, [0.1] * 5)], sequence=number, time_ns=time_ns, request=context(f"r-{number}"),
            finished=[f"r-{number}"],
        )  # fmt: skip
        made.append((time_ns, codec.encode(frame)))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with tape.Tape(tmp_path / TAPE) as written:
        for time_ns, frame in frames():
            written.keep(time_ns, frame)
    return tmp_path


def test_windows_close_as_they_did_and_canaries_fall_where_they_ended(folder: Path):
    found = list(observed(folder / TAPE, [CANARY]))
    assert [window.number for window in found] == [0, 1]
    assert [window.traffic["requests"] for window in found] == [WINDOW_REQUESTS] * 2
    assert [len(window.canaries) for window in found] == [1, 0]


def test_each_window_goes_back_into_the_recording_in_whose_time_it_ended(folder: Path):
    first, second = observed(folder / TAPE, [])
    for name, window in (("restart-1", first), ("restart-2", second)):
        recording.write(folder / f"{name}.history", [window], {"scenario": "restart", "run": int(name[-1]), "split": "report"})
    assert observe_again(folder, folder) == 2
    for name, window in (("restart-1", first), ("restart-2", second)):
        again = recording.read(folder / f"{name}.history")
        assert again.meta["run"] == int(name[-1])
        assert [item.requests for item in again.windows] == [window.requests]


def test_a_recording_of_a_clock_that_ran_ahead_does_not_take_the_windows_of_those_that_followed(folder: Path):
    first, second = observed(folder / TAPE, [])
    skewed = replace(first, end_ns=second.end_ns + SECOND // 2)
    recording.write(folder / "clock_skew-1.history", [first, skewed], {"scenario": "clock_skew", "run": 1, "split": "report"})
    recording.write(folder / "restart-1.history", [second], {"scenario": "restart", "run": 1, "split": "report"})
    assert observe_again(folder, folder) == 2
    assert [item.end_ns for item in recording.read(folder / "restart-1.history").windows] == [second.end_ns]
    assert [item.end_ns for item in recording.read(folder / "clock_skew-1.history").windows] == [first.end_ns]


def test_a_recording_whose_frames_are_on_no_tape_stays_as_it_is(folder: Path):
    first, _ = observed(folder / TAPE, [])
    earlier = replace(first, start_ns=first.start_ns - 1000 * SECOND, end_ns=first.end_ns - 1000 * SECOND)
    recording.write(folder / "baseline.history", [earlier], {"scenario": "baseline", "run": 0, "split": "baseline"})
    recording.write(folder / "restart-1.history", [first], {"scenario": "restart", "run": 1, "split": "report"})
    assert observe_again(folder, folder) == 1
    assert "observed_again" not in recording.read(folder / "baseline.history").meta
    assert "observed_again" in recording.read(folder / "restart-1.history").meta


def test_without_frames_it_says_how_they_are_kept(tmp_path: Path):
    with pytest.raises(CommandError, match="--keep-frames"):
        observe_again(tmp_path, tmp_path)
