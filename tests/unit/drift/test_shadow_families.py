"""Families in shadow: judged on a clock of their own, which neither hastens nor delays the pager's."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from headwatch.drift.parts import Key
from headwatch.errors import ConfigError

from . import subjects
from .engines import BEGUN, running
from .windows import CHAT, CONFIG, SCOPES, Deployment

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch.config import DriftConfig
    from headwatch.drift.engine import Step
    from headwatch.findings import DriftEvent

DRIFT = Deployment(heads_shift=2.0, signal_shift={"grounding_ratio": -4.0}, begins=110)
LAST = 140
SHADOW = ("heads.mean", "signals.spread")


def settings(**changed: object) -> DriftConfig:
    return msgspec.structs.replace(CONFIG, **changed)


def steps(folder: Path, config: DriftConfig, last: int = LAST) -> list[Step]:
    with running(folder, config) as engine:
        found = []
        for index in range(engine.window + 1 - DRIFT.first, last):
            found.append(engine.step(DRIFT.window(index)))
            engine.save()
        return found


def told(event: DriftEvent | None) -> object:
    """Return what does not hang on which heads are named: these are ranked by all that is known of them."""
    if event is None:
        return None
    spoke = [(one.kind, one.name, one.stratum, one.log10_evidence) for one in event.evidence if one.log10_evidence > 1.0]
    return event.time_ns, event.log10_evidence, spoke


@pytest.fixture
def copied(begun, tmp_path_factory):
    """Return what makes another copy of a healthy deployment."""
    def copy() -> Path:
        folder = tmp_path_factory.mktemp("copy")
        for name in ("drift.db", "history.db"):
            shutil.copy(begun / name, folder / name)
        return folder

    return copy


@pytest.mark.parametrize("families", [SHADOW, ("level.1", "signals.mean")])
def test_the_pager_does_what_it_would_do_if_they_had_no_weight(copied, families) -> None:
    """Before, at and after each page of either clock: the same readings, and pages of the same."""
    without = steps(copied(), settings(family_weights=dict.fromkeys(families, 0.0)))
    shadow = steps(copied(), settings(shadow_families=families))
    assert any(step.in_shadow for step in shadow)
    assert any(step.event for step in without)
    assert [told(step.event) for step in shadow] == [told(step.event) for step in without]
    assert [step.status.clock for step in shadow] == [step.status.clock for step in without]
    assert [step.status.evidence for step in shadow] == [step.status.evidence for step in without]
    assert {step.in_shadow for step in without} == {None}
    assert {step.status.shadow_clock for step in without} == {None}


def test_they_say_what_they_would_have_paged_and_begin_again_at_zero(copied) -> None:
    families = ("heads.mean", "signals.mean")
    found = steps(copied(), settings(shadow_families=families))
    paged = [place for place, step in enumerate(found) if step.in_shadow is not None]
    first = found[paged[0]].in_shadow
    assert first.shadow_families == families
    assert 110 <= BEGUN + paged[0] <= 116
    assert first.log10_evidence >= np.log10(CONFIG.interval_windows)
    at, after = found[paged[0]].status, found[paged[0] + 1].status
    assert at.shadow_clock == pytest.approx(first.log10_evidence)
    assert after.shadow_clock < at.shadow_clock - 1.0
    assert len(paged) >= 2
    second = found[paged[1]].in_shadow
    assert second.since_ns >= first.time_ns, "the evidence of the first is spent"


def test_what_they_find_alone_pages_nobody_and_stops_no_learning(copied) -> None:
    """Signals move and no head does: the pager has nothing, and the windows stay above suspicion."""
    alone = Deployment(signal_shift={"grounding_ratio": -6.0}, begins=110)
    folder = copied()
    with running(folder, settings(shadow_families=("signals.mean", "signals.spread"))) as engine:
        found = []
        for index in range(BEGUN, 130):
            found.append(engine.step(alone.window(index)))
            engine.save()
        assert any(step.in_shadow for step in found)
        assert not any(step.event for step in found)
        assert engine._keeper.suspects(0, 2**62) == {}
        assert engine._course.paged == -1


@pytest.mark.parametrize("restart", [105, 113, 122])
def test_a_restart_in_the_middle_goes_on_exactly(copied, restart) -> None:
    config = settings(shadow_families=SHADOW)
    whole = steps(copied(), config)
    folder = copied()
    parts = steps(folder, config, restart) + steps(folder, config)
    assert parts == whole


@pytest.mark.parametrize(
    "changed",
    [{"shadow_families": ("lasting.8",)}, {"family_weights": {"level.1": 0.3}}, {"route_weights": {"chat": 2.0}},
     {"feature_weights": {"entropy": 0.5}}],
)  # fmt: skip
def test_other_weights_than_before_begin_without_evidence(copied, caplog, changed) -> None:
    """Weights are fixed beforehand: evidence that was gathered under others must not be weighed again."""
    folder = copied()
    with running(folder) as engine:
        assert engine._pager.shows(engine._watched.values()) > 0.0
        foreseen = engine._watched[Key("heads", CHAT.label)].monitor.heads.filter.state
    with running(folder, settings(**changed)) as engine:
        assert "evidence begins anew" in caplog.text
        assert [clock.shows(engine._watched.values()) for clock in engine._clocks] == [0.0] * len(engine._clocks)
        assert engine._pager.evidence_from == engine.window + 1
        np.testing.assert_array_equal(engine._watched[Key("heads", CHAT.label)].monitor.heads.filter.state, foreseen)
        engine.step(DRIFT.window(BEGUN))
        engine.save()
        gathered = engine._pager.shows(engine._watched.values())
    caplog.clear()
    with running(folder, settings(**changed)) as engine:
        assert caplog.text == ""
        assert engine._pager.shows(engine._watched.values()) == gathered


def test_a_state_that_does_not_say_its_weights_goes_on(copied, caplog) -> None:
    """One that an earlier headwatch left: there were weights of families alone, and they are taken to be the same."""
    folder = copied()
    file = sqlite3.connect(folder / "drift.db")
    file.execute("UPDATE clock SET facts = json_remove(facts, '$.weights', '$.shadow_from')")
    file.commit()
    file.close()
    with running(folder) as engine:
        assert caplog.text == ""
        assert engine._pager.shows(engine._watched.values()) > 0.0
    with running(folder, settings(shadow_families=("lasting.8",))) as engine:
        assert "evidence begins anew" in caplog.text
        assert engine._pager.shows(engine._watched.values()) == 0.0


def test_a_family_that_there_is_not_is_refused(tmp_path) -> None:
    config = settings(shadow_families=("lasting.9",))
    with pytest.raises(ConfigError, match=r"no family 'lasting\.9'"), running(tmp_path, config):
        pass


@pytest.mark.parametrize(("make", "family"), [(subjects.heads, "energy.8"), (subjects.signals, "signals.spread")])
def test_a_reset_of_one_family_leaves_the_others(make, family) -> None:
    subject = make()
    monitor = subject.fed(subject.healthy(40, 7))
    before = monitor.evidence()
    monitor.reset(families=(family,))
    after = monitor.evidence()
    assert (after.pop(family) == 0).all()
    for name, value in after.items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("changed", "pages"),
    [({}, True), ({"route_weights": {"chat": 0.0}}, True), ({"route_weights": {"search": 0.0}}, False),
     ({"feature_weights": {"document_mass": 0.0}}, True), ({"feature_weights": {"grounding_ratio": 0.0}}, False)],
)  # fmt: skip
def test_a_route_or_a_feature_pages_only_where_it_has_a_weight(copied, changed, pages) -> None:
    """The grounding of one route falls by far."""
    healthy, moved = Deployment(), Deployment(signal_shift={"grounding_ratio": -6.0}, begins=0)
    events = []
    with running(copied(), settings(**changed)) as engine:
        for index in range(BEGUN, BEGUN + 12):
            window = healthy.window(index)
            signals = {**window.signals, SCOPES["search"]: moved.window(index).signals[SCOPES["search"]]}
            events.append(engine.step(replace(window, signals=signals)).event)
    assert any(events) is pages
