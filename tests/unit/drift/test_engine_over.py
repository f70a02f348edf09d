"""When a change is over, changes of spread, and states and baselines of other versions."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import msgspec
import pytest

from headwatch.drift.engine import interval_windows
from headwatch.drift.parts import Key
from headwatch.errors import ConfigError
from headwatch.observed import ObservedWindow

from .engines import BEGUN, fed, running, status
from .windows import CHAT, CONFIG, SEARCH, SIGNALS, Deployment


def test_it_is_calm_once_what_moved_is_back_and_not_before(begun) -> None:
    passing = Deployment(heads_shift=3.0, signal_shift={"grounding_ratio": -5.0}, begins=100, ends=120)
    with running(begun) as engine:
        event = next(iter(fed(engine, passing, BEGUN, 110).values()))
        assert not engine.calm(event)
        fed(engine, passing, 110, 120)
        assert not engine.calm(event)
        fed(engine, passing, 120, 120 + CONFIG.resolve_windows // 2)
        assert not engine.calm(event), "half of the last windows are not back"
        fed(engine, passing, 120 + CONFIG.resolve_windows // 2, 128)
        assert engine.calm(event)


def test_a_change_of_spread_pages_says_so_and_is_over_when_its_evidence_stays_away(tmp_path) -> None:
    """Values that scatter three times as widely, their mean unmoved."""
    def scattered(index: int):
        window = Deployment().window(index)
        if not 320 <= index < 335:
            return window
        signals = {
            scope: {name: msgspec.structs.replace(value, mean=usual + 3.0 * (value.mean - usual))
                    for name, value in values.items() for usual in [SIGNALS[name][0]]}
            for scope, values in window.signals.items()
        }  # fmt: skip
        return replace(window, signals=signals)

    with running(tmp_path) as engine:
        event = None
        for index in range(335):
            found = engine.step(scattered(index)).event
            engine.save()
            event = event or found
            assert event is None or index >= 320
        assert event is not None
        leading = event.evidence[0]
        assert "the spread changed, to" in leading.note
        for index in range(335, 350):
            engine.step(scattered(index))
        assert engine.calm(replace_evidence(event, leading))


def replace_evidence(event, evidence):
    return msgspec.structs.replace(event, evidence=(msgspec.structs.replace(evidence, effect=0.1),))


def test_no_traffic_is_not_calm(begun) -> None:
    drifting = Deployment(signal_shift={"grounding_ratio": -6.0}, begins=100)
    with running(begun) as engine:
        event = next(iter(fed(engine, drifting, BEGUN, 106).values()))
        for index in range(106, 120):
            window = drifting.window(index)
            engine.step(ObservedWindow(window.number, window.start_ns, window.end_ns))
        assert not engine.calm(event)


def test_a_state_of_another_version_begins_anew_and_says_so(begun, caplog) -> None:
    file = sqlite3.connect(begun / "drift.db")
    file.execute("UPDATE state SET content = ? WHERE key = ?", (b"of another version", f"heads:{CHAT.label}"))
    file.commit()
    file.close()
    with running(begun) as engine:
        evidence = engine._watched[Key("heads", CHAT.label)].monitor.evidence()
        assert all((value == 0).all() for value in evidence.values())
        other = engine._watched[Key("heads", SEARCH.label)].monitor.evidence()
        assert all((value > 0).any() for value in other.values())
    assert "begins anew" in caplog.text


def test_a_baseline_of_another_version_is_learned_anew_from_the_history(begun, caplog) -> None:
    """An upgrade must neither keep the sidecar from starting nor leave it blind."""
    file = sqlite3.connect(begun / "drift.db")
    file.execute("UPDATE part SET content = ? WHERE key = ?", (b"of another version", f"heads:{CHAT.label}"))
    file.commit()
    file.close()
    with running(begun) as engine:
        assert "baseline 1 cannot be used" in caplog.text
        assert (engine.version, engine.parts) == (0, {})
        assert status(engine, Deployment(), BEGUN).state == "watching"
        assert engine.version == 2
    with running(begun) as engine:
        assert engine.version == 2
        assert fed(engine, Deployment(signal_shift={"grounding_ratio": -6.0}, begins=0), BEGUN + 1, BEGUN + 6)


def test_the_interval_comes_from_days_or_from_windows() -> None:
    assert interval_windows(msgspec.structs.replace(CONFIG, interval_windows=0.0, false_alarm_days=30.0), 60.0) == 43_200.0
    assert interval_windows(CONFIG, 60.0) == 2000.0


def test_a_family_that_there_is_not_is_refused(tmp_path) -> None:
    config = msgspec.structs.replace(CONFIG, family_weights={"heads.men": 1.0})
    with pytest.raises(ConfigError, match=r"no family 'heads\.men'"), running(tmp_path, config):
        pass
