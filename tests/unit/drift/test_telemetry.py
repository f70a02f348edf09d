"""headwatch's own state: figures of a window, and what of them is a fault."""

from __future__ import annotations

import msgspec
import pytest

from headwatch.drift.telemetry import (
    FIGURES,
    SILENT_NS,
    START_NS,
    TelemetryBaseline,
    TelemetryMeter,
    is_suspect,
    telemetry_evidence,
)
from headwatch.health import Health, WorkerHealth
from headwatch.model import StatusFrame, WorkerIdentity
from headwatch.observed import ObservedWindow

SECOND = 1_000_000_000
HEALTHY = {
    "capture_up": 1.0, "workers": 1.0, "frames_missing_share": 0.0, "rows_dropped_share": 0.0, "rows_refused_share": 0.0,
    "refused_layers": 0.0, "clock_skew_seconds": 0.01, "sample_rate": 0.1, "step_stride": 8.0, "budget_stride": 1.0,
    "detail": 1.0, "rows": 1000.0, "late_rows": 0.0,
}  # fmt: skip


def worker(
    instance: str = "engine-1", *, time_ns: int = 0, planned: int = 100, dropped: int = 0, refused: int = 0, up: bool = True,
    received: int = 100, missing: int = 0, skew: float = 0.0, layers: dict[str, str] | None = None, start_ns: int = 1,
    budget_stride: int = 1,
) -> WorkerHealth:  # fmt: skip
    identity = WorkerIdentity(instance, 0, start_ns, "model", "rev", "float32", 2, 3, "0.32.0")
    status = StatusFrame(
        identity, 1, time_ns, up, "", {"rows_planned": planned, "rows_dropped": dropped, "rows_refused": refused}, {},
        layers or {}, 0.1, 10.0, 0.1, 8, "runner", "backend", budget_stride=budget_stride,
    )  # fmt: skip
    return WorkerHealth(status, time_ns, skew, received, missing)


def health(*workers: WorkerHealth, time_ns: int = 0, **ingest: int) -> Health:
    return Health(time_ns, workers, ingest, {})


def observed(telemetry: dict[str, float], number: int = 0) -> ObservedWindow:
    return ObservedWindow(number, number * 60 * SECOND, (number + 1) * 60 * SECOND, telemetry=telemetry)


def usual() -> TelemetryBaseline:
    return TelemetryBaseline.learn(observed(HEALTHY, number) for number in range(20))


def names(telemetry: dict[str, float], baseline: TelemetryBaseline | None = None) -> list[str]:
    return [item.name for item in telemetry_evidence(telemetry, baseline or usual(), 0)]


def test_figures_of_a_window_are_what_happened_in_it() -> None:
    """Cumulative counts from before the first look are nobody's window."""
    meter = TelemetryMeter()
    meter.add(health(worker(planned=1000, dropped=500, received=90, missing=10), rows=70, late_rows=7))
    meter.window()
    meter.add(health(worker(planned=1200, dropped=550, refused=20, received=170, missing=30), rows=170, late_rows=9))
    made = meter.window()
    assert made["rows_dropped_share"] == 0.25
    assert made["rows_refused_share"] == 0.1
    assert made["frames_missing_share"] == 0.2
    assert (made["rows"], made["late_rows"]) == (100.0, 2.0)
    assert made.keys() <= FIGURES.keys()


def test_a_worker_that_starts_again_counts_from_nothing() -> None:
    meter = TelemetryMeter()
    meter.add(health(worker(planned=1000)))
    meter.window()
    meter.add(health(worker(planned=100, dropped=50, start_ns=2)))
    assert meter.window()["rows_dropped_share"] == 0.5


def test_a_window_has_the_worst_that_was_seen_in_it() -> None:
    meter = TelemetryMeter()
    meter.add(health(worker(), worker("engine-2")))
    meter.add(health(worker(skew=-30.0, layers={"l.3": "layout"}), worker("engine-2", up=False)))
    meter.add(health(worker(), worker("engine-2")))
    made = meter.window()
    assert (made["capture_up"], made["clock_skew_seconds"], made["refused_layers"]) == (0.5, -30.0, 1.0)
    meter.add(health(worker(), worker("engine-2")))
    assert meter.window()["capture_up"] == 1.0


def test_a_worker_that_falls_silent_is_down_once_and_then_forgotten() -> None:
    meter = TelemetryMeter()
    meter.add(health(worker(), worker("engine-2")))
    meter.window()
    later = SILENT_NS + SECOND
    for expected in (0.5, 1.0):
        meter.add(health(worker(time_ns=later), worker("engine-2"), time_ns=later))
        made = meter.window()
        assert (made["capture_up"], made["workers"]) == (expected, 1.0)


def test_a_sidecar_that_is_up_before_its_server_has_no_fault_of_capture() -> None:
    """A model loads for minutes.  Whoever has reported once is missed; and windows without workers teach nothing."""
    meter = TelemetryMeter()
    assert meter.window() == {}, "nothing was looked at"
    for minute in range(60):
        meter.add(health(time_ns=minute * 60 * SECOND))
        made = meter.window()
        assert "capture_up" not in made
        assert "sample_rate" not in made
        assert names(made, TelemetryBaseline()) == []
        assert is_suspect(made)
    meter.add(health(worker(time_ns=3600 * SECOND), time_ns=3600 * SECOND))
    assert meter.window()["capture_up"] == 1.0
    for minute in (61, 62):
        meter.add(health(worker(time_ns=3600 * SECOND), time_ns=minute * 60 * SECOND))
        assert meter.window()["capture_up"] == 0.0


def test_workers_that_an_earlier_life_knew_are_down_once_they_had_time_to_start() -> None:
    meter = TelemetryMeter(START_NS)
    due = START_NS // (60 * SECOND)
    seen = []
    for minute in range(due + 2):
        meter.add(health(time_ns=(1000 + minute) * 60 * SECOND))
        seen.append(meter.window().get("capture_up"))
    assert seen == [None] * due + [0.0, 0.0]
    patient = TelemetryMeter(0)
    patient.add(health())
    assert patient.window()["capture_up"] == 0.0, "an incident is open that says so: it goes on"


def test_a_healthy_window_is_no_evidence() -> None:
    assert names(HEALTHY) == []
    assert not is_suspect(HEALTHY)


def test_faults_are_named_and_make_a_window_suspect() -> None:
    for name, value in (
        ("capture_up", 0.5), ("frames_missing_share", 0.02), ("rows_dropped_share", 0.06), ("clock_skew_seconds", -2.5),
        ("late_rows", 60.0),
    ):  # fmt: skip
        window = {**HEALTHY, name: value}
        assert names(window) == [name]
        assert is_suspect(window), name


def test_refused_layers_are_named_and_their_windows_still_teach() -> None:
    """What is missing is missing in known places: the streams of those layers have no rows."""
    window = {**HEALTHY, "refused_layers": 3.0}
    assert names(window) == ["refused_layers"]
    assert not is_suspect(window)
    always = TelemetryBaseline.learn(observed(window, number) for number in range(20))
    assert names(window, always) == [], "it was so before"


def test_a_loss_that_is_usual_is_no_evidence() -> None:
    lossy = {**HEALTHY, "rows_dropped_share": 0.04}
    baseline = TelemetryBaseline.learn(observed(lossy, number) for number in range(20))
    assert names({**HEALTHY, "rows_dropped_share": 0.06}, baseline) == []
    assert names({**HEALTHY, "rows_dropped_share": 0.2}, baseline) == ["rows_dropped_share"]


def test_sampling_that_was_changed_is_evidence_and_thinning_by_the_budget_is_none() -> None:
    assert names({**HEALTHY, "sample_rate": 0.03}) == ["sample_rate"]
    assert names({**HEALTHY, "step_stride": 16.0, "detail": 2.0}) == ["step_stride", "detail"]
    assert names({**HEALTHY, "budget_stride": 16.0}) == []
    assert not is_suspect({**HEALTHY, "sample_rate": 0.03})


def test_the_evidence_says_before_and_after() -> None:
    (item,) = telemetry_evidence({**HEALTHY, "sample_rate": 0.03}, usual(), 7, "model")
    assert (item.kind, item.model, item.before, item.after, item.since_ns) == ("telemetry", "model", 0.1, 0.03, 7)
    assert item.note == "sample_rate is 0.03, it was 0.1"


def test_without_a_baseline_faults_are_found_and_settings_are_not() -> None:
    assert names({**HEALTHY, "sample_rate": 0.03, "capture_up": 0.0}, TelemetryBaseline()) == ["capture_up"]


def test_suspect_windows_teach_nothing() -> None:
    broken = {**HEALTHY, "capture_up": 0.0, "sample_rate": 0.5}
    assert TelemetryBaseline.learn([observed(broken)]) == TelemetryBaseline()


def test_baselines_add_up_and_survive_json() -> None:
    parts = [TelemetryBaseline.learn(observed(HEALTHY, number) for number in numbers) for numbers in (range(5), range(5, 20))]
    assert parts[0].merge(parts[1]).usual("clock_skew_seconds") == pytest.approx(usual().usual("clock_skew_seconds"))
    assert parts[0].merge(parts[1]).settings == usual().settings
    assert msgspec.json.decode(msgspec.json.encode(usual()), type=TelemetryBaseline) == usual()
