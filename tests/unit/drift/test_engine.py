"""The engine: warming up, watching, paging once for what it promises, and never learning what it should detect."""

from __future__ import annotations

import shutil
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from headwatch.drift.keeper import Keeper
from headwatch.drift.parts import Key
from headwatch.observed import ObservedWindow

from .engines import BEGUN, LEARNED, fed, running, status
from .windows import CHAT, CONFIG, MINUTE, RARE, SCOPES, SEARCH, Deployment


def weight(engine, key: Key) -> float:
    item = engine._watched[key]
    return engine._pager.shares(item, np.ones(len(item.part.names))).sum()


def test_it_warms_up_says_until_when_and_then_watches(tmp_path) -> None:
    healthy = Deployment()
    with running(tmp_path) as engine:
        for index in range(LEARNED - 1):
            found = status(engine, healthy, index)
            assert (found.state, found.clock, found.evidence) == ("warming_up", 0.0, ())
            assert found.pages_from_ns == (healthy.first + LEARNED) * MINUTE
        found = status(engine, healthy, LEARNED - 1)
        assert (found.state, found.pages_from_ns, engine.version) == ("watching", 0, 1)
        assert found.threshold == pytest.approx(np.log10(CONFIG.interval_windows))
        found = status(engine, healthy, LEARNED)
        assert {one.stratum for one in found.evidence} >= {CHAT.label, SEARCH.label}
        assert {one.kind for one in found.evidence} == {"heads", "signal"}


def test_a_healthy_deployment_is_not_paged(tmp_path) -> None:
    with running(tmp_path) as engine:
        assert fed(engine, Deployment(seed=3), 0, 300) == {}


def test_a_page_names_what_moved_since_when_and_which_heads(begun) -> None:
    drifting = Deployment(heads_shift=3.0, signal_shift={"grounding_ratio": -4.0}, begins=150)
    with running(begun) as engine:
        [(index, event), *_] = fed(engine, drifting, BEGUN, 160).items()
    assert 150 <= index <= 156
    assert abs(event.since_ns // MINUTE - drifting.first - 150) <= 1
    assert event.windows_since in range(index - 150, index - 150 + 3)
    assert (event.model, event.interval_windows, event.window_seconds) == ("m", 2000.0, 60.0)
    assert event.log10_evidence >= np.log10(2000.0)
    largest = [one.log10_evidence for one in event.evidence[:3]]
    assert largest == sorted(largest, reverse=True)
    signal = next(one for one in event.evidence if one.name == "grounding_ratio")
    assert signal.kind == "signal"
    assert signal.stratum in {scope.label for scope in SCOPES.values()}
    assert signal.before == pytest.approx(0.6, abs=0.01)
    assert signal.after == pytest.approx(0.52, abs=0.02)
    assert signal.effect == pytest.approx(-4.0, abs=1.0)
    heads = next(one for one in event.evidence if one.kind == "heads")
    moved = {(finding.layer * 8 + finding.head) % 3 for finding in heads.heads[:8]}
    assert moved == {0}, "every third head moved, and those are named first"
    first = heads.heads[0]
    assert first.effect == pytest.approx((first.after - first.before) / 0.01, rel=0.35)
    assert "of 24 heads" in heads.note


def test_a_route_is_named_where_one_alone_is_concerned(begun) -> None:
    with running(begun) as engine:
        event = None
        for index in range(BEGUN, BEGUN + 20):
            window, moved = Deployment().window(index), Deployment(signal_shift={"document_mass": -6.0}, begins=0).window(index)
            signals = {**window.signals, SCOPES["search"]: moved.signals[SCOPES["search"]]}
            event = event or engine.step(replace(window, signals=signals)).event
    assert event is not None
    assert event.route == "search"
    assert {one.name for one in event.evidence if one.log10_evidence > 2} == {"document_mass"}


def test_evidence_starts_again_at_zero_after_a_page(begun) -> None:
    drifting = Deployment(signal_shift={"grounding_ratio": -6.0}, begins=100)
    with running(begun) as engine:
        events = fed(engine, drifting, BEGUN, 130)
        assert len(events) >= 2
        first, second, *_ = events
        assert second > first + 1
        assert events[second].since_ns >= events[first].time_ns


def test_late_and_doubled_windows_change_nothing(begun, tmp_path_factory) -> None:
    deployment = Deployment(heads_shift=2.0, begins=120)
    other = tmp_path_factory.mktemp("noisy")
    for name in ("drift.db", "history.db"):
        shutil.copy(begun / name, other / name)
    with running(begun) as engine:
        expected = fed(engine, deployment, BEGUN, 135)
    with running(other) as engine:
        events = {}
        for index in range(BEGUN, 135):
            events |= fed(engine, deployment, index, index + 1)
            for again in (index, index - 1, index - 7):
                if again >= 0:
                    false = replace(deployment.window(again), strata={}, telemetry={"capture_up": 0.0})
                    assert engine.step(false).event is None
    assert events == expected
    assert events


def test_shadow_mode_says_what_would_page(begun) -> None:
    drifting = Deployment(signal_shift={"grounding_ratio": -6.0}, begins=100)
    with running(begun, msgspec.structs.replace(CONFIG, shadow=True)) as engine:
        steps = [engine.step(drifting.window(index)) for index in range(BEGUN, 110)]
    assert any(step.event is not None for step in steps)
    assert steps[-1].status.state == "shadow"
    with running(begun) as engine:  # nothing was saved above
        steps = [engine.step(drifting.window(index)) for index in range(BEGUN, 110)]
    assert any(step.event is not None for step in steps)
    assert steps[-1].status.state == "watching"


def test_windows_with_a_telemetry_fault_are_missing_ones(begun) -> None:
    """Half of the frames are lost and every value is off: that is no drift, and it is not learned."""
    with running(begun) as engine:
        for index in range(100, 130):
            broken = Deployment(heads_shift=9.0, signal_shift={"grounding_ratio": -9.0}, begins=0).window(index)
            step = engine.step(replace(broken, telemetry={**broken.telemetry, "frames_missing_share": 0.5}))
            engine.save()
            assert step.event is None
        assert fed(engine, Deployment(), 130, 200) == {}
        suspect = engine._suspects(0, 10**9)
        assert sorted(suspect) == [Deployment().first + index for index in range(100, 130)]
        later = fed(engine, Deployment(signal_shift={"grounding_ratio": -6.0}, begins=200), 200, 206)
    event = next(iter(later.values()))
    assert abs(event.since_ns // MINUTE - Deployment().first - 200) <= 1, "nor does a page show anything of them"


def test_a_first_baseline_waits_out_the_lag_where_something_was_suspicious(tmp_path) -> None:
    healthy = Deployment()
    with running(tmp_path) as engine:
        for index in range(LEARNED + 30):
            window = healthy.window(index)
            if index == LEARNED - 3:
                window = replace(window, telemetry={"capture_up": 0.0})
            engine.step(window)
            engine.save()
            if engine.version:
                break
    assert index == LEARNED - 3 + CONFIG.learning_lag_windows, "the fault is then so far away that nothing is suspicious"
    with running(tmp_path) as engine:
        entry = engine._keeper.baseline(1)
        assert (entry.last_window - healthy.first, entry.windows) == (index, index)


def test_windows_without_traffic_do_not_count_towards_a_baseline(tmp_path) -> None:
    healthy = Deployment()
    with running(tmp_path) as engine:
        for index in range(LEARNED + 20):
            empty = 10 <= index < 30
            window = healthy.window(index)
            engine.step(ObservedWindow(window.number, window.start_ns, window.end_ns) if empty else window)
            assert bool(engine.version or engine._promote) == (index >= LEARNED + 19)


def test_a_baseline_is_learned_again_when_twice_as_much_is_known_and_without_the_last_windows(tmp_path) -> None:
    with running(tmp_path) as engine:
        fed(engine, Deployment(), 0, 300)
        entries = engine._keeper.baselines()
    lag = CONFIG.learning_lag_windows
    assert [(entry.last_window - Deployment().first, entry.windows) for entry in entries] == [
        (LEARNED - 1, LEARNED), (2 * LEARNED - 1, 2 * LEARNED), (4 * LEARNED - 1, 4 * LEARNED),
    ]  # fmt: skip
    assert [entry.in_force for entry in entries] == [False, False, True]
    assert all((entry.created_ns // MINUTE) - entry.last_window - 1 == lag for entry in entries[1:])


def test_nothing_is_learned_while_frozen_and_its_windows_never(tmp_path) -> None:
    with running(tmp_path) as engine:
        fed(engine, Deployment(), 0, 80)
        engine.freeze(on=True)
        fed(engine, Deployment(), 80, 200)
        assert [entry.version for entry in engine._keeper.baselines()] == [1]
        engine.freeze(on=False)
        fed(engine, Deployment(), 200, 330)
        [_, *later] = engine._keeper.baselines()
        assert later
        first = Deployment().first
        assert all(entry.windows <= entry.last_window - entry.first_window + 1 - 120 or entry.first_window >= first + 200
                   for entry in later)  # fmt: skip


def test_the_windows_of_a_page_teach_nothing_until_it_is_pardoned(begun) -> None:
    drifting = Deployment(signal_shift={"grounding_ratio": -6.0}, begins=100)
    with running(begun) as engine:
        [(index, event), *_] = fed(engine, drifting, BEGUN, 106).items()
        marked = engine._suspects(0, 10**9)
        assert marked
        assert set(marked.values()) == {"page"}
        assert min(marked) <= drifting.first + 101
        assert drifting.first + index in marked
        engine.pardon(event)
        assert engine._suspects(0, drifting.first + index) == {}


def test_a_slow_drift_does_not_become_normal_by_itself(tmp_path) -> None:
    """A baseline that would lie more than half a standard deviation away is kept and not put in force."""
    crept = Deployment(heads_shift=2.5, signal_shift=dict.fromkeys(("grounding_ratio", "document_mass"), 3.0), begins=0)
    with running(tmp_path, msgspec.structs.replace(CONFIG, interval_windows=1e30)) as engine:  # nothing pages
        fed(engine, Deployment(), 0, LEARNED)
        fed(engine, crept, LEARNED, 150)
        entries = engine._keeper.baselines()
    assert [entry.in_force for entry in entries] == [True, *[False] * (len(entries) - 1)]
    assert "not put in force" in entries[-1].note


def test_a_known_change_is_learned_anew(begun) -> None:
    changed = Deployment(heads_shift=4.0, signal_shift={"grounding_ratio": -6.0}, begins=100)
    with running(begun) as engine:
        assert fed(engine, changed, BEGUN, 106)
        engine.rebase(changed.first + 100)
        assert status(engine, changed, 106).state == "warming_up"
    with running(begun) as engine:  # a restart does not bring the old one back
        assert engine.normal_since == changed.first + 100
        assert fed(engine, changed, 107, 230) == {}
        assert status(engine, changed, 230).state == "watching"
        scope = engine.parts[Key("signal", SCOPES["chat"].label)]
        place = scope.names.index("grounding_ratio")
        assert scope.streams.mean[place, 0] == pytest.approx(0.6 - 6.0 * 0.02, abs=0.01)
        entry = engine._keeper.baselines()[-1]
        assert entry.first_window == changed.first + 100, "the windows of the incident are normal now"


def test_a_new_stratum_joins_on_the_reserve_and_then_pages(tmp_path) -> None:
    """A route that appears later is watched once it has a baseline of its own, and what is watched already goes on."""
    alone = Deployment(strata=(CHAT,))
    with running(tmp_path) as engine:
        fed(engine, alone, 0, 70)
        engine._keeper.pin(1)
    with running(tmp_path) as engine:
        clock = status(engine, Deployment(), 70).clock
        assert Key("heads", SEARCH.label) not in engine.parts
        fed(engine, Deployment(), 71, 71 + LEARNED + CONFIG.learning_lag_windows)
        assert weight(engine, Key("heads", SEARCH.label)) == pytest.approx(0.1)
        assert engine.version == 1
        assert status(engine, Deployment(), 71 + LEARNED + CONFIG.learning_lag_windows).clock > clock
    with running(tmp_path) as engine:
        assert weight(engine, Key("heads", SEARCH.label)) == pytest.approx(0.1)
        window = 72 + LEARNED + CONFIG.learning_lag_windows
        drifting = Deployment(strata=(SEARCH,), heads_shift=4.0, begins=0)
        events = fed(engine, drifting, window, window + 15)
    assert events
    assert next(iter(events.values())).evidence[0].stratum == SEARCH.label


def test_rare_strata_are_pooled_and_the_pool_pages(tmp_path) -> None:
    rare = Deployment(strata=(CHAT, RARE))
    with running(tmp_path) as engine:
        fed(engine, rare, 0, 70)
        pool = Key("heads", "m|r1||pooled|decode")
        assert set(engine.parts) == {Key("heads", CHAT.label), pool, *(Key("signal", s.label) for s in SCOPES.values())}
        assert list(engine.parts[pool].members) == [RARE.label]
        events = fed(engine, Deployment(strata=(RARE,), heads_shift=4.0, begins=0), 70, 85)
    assert events
    assert next(iter(events.values())).evidence[0].stratum == pool.label


def test_what_a_command_puts_in_force_is_noticed_with_the_next_window(begun) -> None:
    with running(begun) as engine:
        fed(engine, Deployment(), BEGUN, 140)
        assert engine.version == 2
        command = Keeper(begun / "drift.db")
        command.promote(1, 7, "ann")
        command.close()
        found = status(engine, Deployment(), 140)
        assert engine.version == 1
        assert found.clock < 1.0, "evidence against the other one is forgotten"
