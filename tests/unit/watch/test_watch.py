"""From windows to incidents: the right class, once, across restarts, and over when it is over."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest

from headwatch.drift.keeper import Keeper
from headwatch.places import DRIFT_STATE

from .scenes import BASELINE, CONFIG, LAG, SECOND, START, opened, taught, window, with_canary

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch.observed import ObservedWindow
    from headwatch.watch.watch import Watch


def live(watch: Watch) -> list[tuple[str, str]]:
    return [(one.verdict.drift_class, one.verdict.cause) for one in watch.book.open_incidents()]


def test_healthy_windows_open_nothing(tmp_path: Path):
    watch, number = taught(tmp_path)
    for more in range(60):
        assert watch.take(with_canary(window(number + more))).changes == ()
    assert watch.book.list() == []
    watch.close()


def test_retrieval_that_is_down_opens_one_incident_of_retrieval(tmp_path: Path):
    watch, number = taught(tmp_path)
    for more in range(30):
        watch.take(with_canary(window(number + more, documents_absent=1.0)))
    assert live(watch) == [("retrieval", "documents_absent")]
    (incident,) = watch.book.open_incidents()
    assert incident.event.windows_since <= 8
    assert incident.paged
    assert incident.exhibits.requests, "examples are frozen with it"
    assert len(watch.book.list()) == 1, "a cause that lasts stays one incident"
    watch.close()


def test_a_canary_that_fails_once_is_a_model_incident_at_once(tmp_path: Path):
    watch, number = taught(tmp_path)
    seen = watch.take(with_canary(window(number), failed=True))
    assert [change.action for change in seen.changes] == ["opened"]
    assert live(watch) == [("model", "weights")]
    for more in range(1, 10):
        assert watch.take(with_canary(window(number + more), failed=True)).changes == ()
    watch.close()


def test_heads_that_move_while_canaries_pass_page_nobody(tmp_path: Path):
    watch, number = taught(tmp_path)
    for more in range(40):
        watch.take(with_canary(window(number + more, heads_move=2.0)))
    assert {one.verdict.drift_class for one in watch.book.list()} == {"traffic"}
    assert not any(one.paged for one in watch.book.list())
    watch.close()


def test_heads_that_move_wait_for_a_canary_that_is_younger_than_the_change(tmp_path: Path):
    watch, number = taught(tmp_path)
    watch.close()
    asked: list[int] = []
    watch = opened(tmp_path, ask=lambda: not asked.append(1))
    first = next(more for more in range(40) if watch.take(window(number + more, heads_move=2.0)).changes or asked)
    assert asked, "a run was asked for when the event came"
    assert live(watch) == []
    watch.take(with_canary(window(number + first + 1, heads_move=2.0), failed=True))
    assert live(watch) == [("model", "weights")]
    watch.close()


def test_frames_that_are_lost_are_a_fault_of_telemetry_and_move_no_head(tmp_path: Path):
    watch, number = taught(tmp_path)
    for more in range(12):
        broken = window(number + more, heads_move=3.0)
        watch.take(with_canary(replace(broken, telemetry={**broken.telemetry, "frames_missing_share": 0.3})))
    assert live(watch) == [("telemetry", "frames_lost")]
    watch.close()


def test_one_bad_window_of_telemetry_is_an_accident(tmp_path: Path):
    watch, number = taught(tmp_path)
    broken = window(number)
    watch.take(with_canary(replace(broken, telemetry={**broken.telemetry, "frames_missing_share": 0.3})))
    watch.take(with_canary(window(number + 1)))
    assert watch.book.list() == []
    watch.close()


def test_a_system_prompt_that_vanishes_is_a_change_of_the_model(tmp_path: Path):
    watch, number = taught(tmp_path)
    for more in range(8):
        seen = with_canary(window(number + more))
        traffic = {name: value for name, value in seen.traffic.items() if not name.startswith("template:")}
        watch.take(replace(seen, traffic={**traffic, "template:hr:ffffffff": 10.0}))
    assert live(watch) == [("model", "system_prompt")]
    watch.close()


def test_other_routes_are_reported_and_page_nobody(tmp_path: Path):
    watch, number = taught(tmp_path)
    for more in range(12):
        watch.take(with_canary(window(number + more, route="legal")))
    incidents = watch.book.list()
    assert {one.verdict.drift_class for one in incidents} == {"traffic"}
    assert not any(one.paged for one in incidents)
    watch.close()


def test_an_upgrade_that_counts_more_is_no_change_and_a_shift_between_models_is_one(tmp_path: Path):
    """The first baseline is of windows that count no models; the next one, of both sorts, knows which are usual."""
    watch, number = taught(tmp_path)

    def served(more: int, **models: float) -> ObservedWindow:
        seen = with_canary(window(number + more))
        return replace(seen, traffic={**seen.traffic, **{f"model:{name}": count for name, count in models.items()}})

    for more in range(BASELINE + LAG):
        assert watch.take(served(more, small=9.0, large=1.0)).changes == ()
    assert watch.engine.version > 1, "a baseline that has seen them is in force"
    for more in range(BASELINE + LAG, BASELINE + LAG + 8):
        watch.take(served(more, small=2.0, large=8.0))
    assert live(watch) == [("traffic", "model_mix")]
    assert not watch.book.open_incidents()[0].paged
    watch.close()


@pytest.mark.parametrize("cause", ["documents", "canary", "telemetry"])
def test_what_is_over_resolves_by_itself_and_is_ruled_by_nobody(tmp_path: Path, cause: str):
    watch, number = taught(tmp_path)
    for more in range(20):
        seen = with_canary(window(number + more, **({"documents_absent": 1.0} if cause == "documents" else {})),
                           failed=cause == "canary")  # fmt: skip
        if cause == "telemetry":
            seen = replace(seen, telemetry={**seen.telemetry, "refused_layers": 2.0})
        watch.take(seen)
    assert len(live(watch)) == 1
    for more in range(20, 40):
        watch.take(with_canary(window(number + more)))
    assert live(watch) == []
    (incident,) = watch.book.list()
    assert (incident.state, incident.resolved_by, incident.ruling) == ("resolved", "headwatch", None)
    watch.close()


def test_a_kill_between_the_incident_and_the_saved_state_opens_it_once(tmp_path: Path):
    """The worst instant: the book has it, and what detection saved is of the window before."""
    watch, number = taught(tmp_path / "a")
    before = tmp_path / "before.db"
    for more in range(30):
        shutil.copy(tmp_path / "a" / "drift.db", before)
        shutil.copy(tmp_path / "a" / "drift.db-wal", tmp_path / "before.db-wal")
        if watch.take(with_canary(window(number + more, documents_absent=1.0))).changes:
            break
    (incident,) = watch.book.list()
    watch.close()
    (tmp_path / "a" / "drift.db").unlink()
    shutil.move(before, tmp_path / "a" / "drift.db")
    shutil.move(tmp_path / "before.db-wal", tmp_path / "a" / "drift.db-wal")
    again = opened(tmp_path / "a")
    assert [seen.changes for seen in again.catch_up()], "the window was kept and not saved, so it is judged again"
    assert [one.id for one in again.book.list()] == [incident.id]
    assert again.book.get(incident.id).event == incident.event
    again.close()


def test_a_restart_in_the_middle_of_a_drift_pages_as_if_it_had_not_been(tmp_path: Path):
    through, number = taught(tmp_path / "through")
    shutil.copytree(tmp_path / "through", tmp_path / "stopped")
    drifting = [with_canary(window(number + more, grounding_ratio_retrieval=0.52)) for more in range(60)]
    for seen in drifting:
        through.take(seen)
    for index, seen in enumerate(drifting):
        stopped = opened(tmp_path / "stopped")
        stopped.take(seen)
        if index % 7 == 0:
            stopped.take(seen)  # twice
        stopped.close()
    stopped = opened(tmp_path / "stopped")
    assert through.book.list(), "it is found at all"
    assert stopped.book.list() == through.book.list()
    through.close()
    stopped.close()


def test_shadow_mode_records_and_tells_nobody(tmp_path: Path):
    shadow = msgspec.structs.replace(CONFIG, drift=msgspec.structs.replace(CONFIG.drift, shadow=True))
    watch, number = taught(tmp_path, shadow)
    for more in range(20):
        watch.take(with_canary(window(number + more, documents_absent=1.0)))
    (incident,) = watch.book.list()
    assert (incident.paged, incident.silenced, incident.silenced_why) == (False, True, "shadow mode")
    watch.close()


def test_a_planned_release_is_taken_as_the_new_normal_instead_of_paging(tmp_path: Path):
    watch, number = taught(tmp_path)
    start = window(number).start_ns
    watch.book.calendar.add_deploy("model 2", revision="r2", who="ops", planned_seconds=3600.0, time_ns=start - SECOND)
    for more in range(20):
        watch.take(with_canary(window(number + more), failed=True, hint="weights"))
    (incident,) = watch.book.list()
    assert (incident.state, incident.ruling, incident.paged) == ("resolved", "known_change", False)
    watch.close()


def test_a_known_change_is_learned_anew_and_a_false_page_teaches(tmp_path: Path):
    watch, number = taught(tmp_path)
    for more in range(20):
        watch.take(with_canary(window(number + more, documents_absent=1.0)))
    (incident,) = watch.book.open_incidents()
    watch.book.resolve(incident.id, "ops", "known_change", "the route has no documents any more")
    watch.take(with_canary(window(number + 20, documents_absent=1.0)))
    assert watch.engine.version == 0, "no baseline is in force until the new normal is known"
    watch.close()


def test_a_known_change_that_is_acknowledged_is_learned_anew_and_closed(tmp_path: Path):
    watch, number = taught(tmp_path)
    for more in range(20):
        watch.take(with_canary(window(number + more, documents_absent=1.0)))
    (incident,) = watch.book.open_incidents()
    watch.book.ack(incident.id, "ops", "the route has no documents any more", "known_change")
    seen = watch.take(with_canary(window(number + 20, documents_absent=1.0)))
    assert watch.engine.version == 0, "no baseline is in force until the new normal is known"
    assert [change.action for change in seen.changes] == ["resolved"]
    ended = watch.book.get(incident.id)
    assert (ended.state, ended.ruling, ended.resolved_by) == ("resolved", "known_change", "headwatch")
    for more in range(21, 21 + BASELINE + 2 * LAG):
        assert watch.take(with_canary(window(number + more, documents_absent=1.0))).changes == ()
    assert watch.engine.version > 0, "what was open while it was ruled keeps nothing from being learned"
    for more in range(100, 130):
        watch.take(with_canary(window(number + more, documents_absent=1.0, documents_unresolved=1.0)))
    assert live(watch) == [("retrieval", "documents_unresolved")], "the next change is an incident of its own"
    watch.close()


def test_a_known_change_of_the_model_that_is_acknowledged_pins_the_canaries_once(tmp_path: Path):
    pinned: list[int] = []
    watch, number = taught(tmp_path)
    watch.close()
    watch = opened(tmp_path, pin=lambda: pinned.append(1))
    watch.take(with_canary(window(number), failed=True))
    (incident,) = watch.book.open_incidents()
    watch.book.ack(incident.id, "ops", "4f1c", "known_change")
    for more in range(1, 5):
        watch.take(with_canary(window(number + more), failed=more < 3))
        assert pinned == [1], "with the first window, not when it is over"
    assert [one.id for one in watch.book.list()] == [incident.id]
    assert live(watch) == []
    watch.close()


def test_a_false_page_that_is_acknowledged_teaches_and_stays_open(tmp_path: Path):
    watch, number = taught(tmp_path)
    opens = next(more for more in range(20) if watch.take(with_canary(window(number + more, documents_absent=1.0))).changes)
    (incident,) = watch.book.open_incidents()
    kept = Keeper(tmp_path / DRIFT_STATE)
    page = [START + number + more for more in range(opens + 1)]
    assert set(kept.suspects(page[0], page[-1]).values()) == {"page"}
    watch.book.ack(incident.id, "ops", "", "false_page")
    watch.take(with_canary(window(number + opens + 1, documents_absent=1.0)))
    assert kept.suspects(page[0], page[-1]) == {}
    assert live(watch) == [("retrieval", "documents_absent")]
    kept.close()
    watch.close()


def test_nothing_is_learned_while_an_incident_is_open_and_its_windows_never(tmp_path: Path):
    """Not only what the incident is about: what else it moves is not known."""
    watch, number = taught(tmp_path)
    for more in range(20):
        watch.take(with_canary(window(number + more, documents_absent=1.0)))
    assert watch.engine.frozen
    watch.book.ack(watch.book.open_incidents()[0].id, "ops")
    watch.take(with_canary(window(number + 20)))
    assert watch.engine.frozen, "somebody looks after it, and it is still there"
    watch.book.resolve(watch.book.open_incidents()[0].id, "ops", "true")
    watch.take(with_canary(window(number + 21)))
    assert not watch.engine.frozen
    kept = Keeper(tmp_path / DRIFT_STATE)
    assert kept.suspects(START + number + 20, START + number + 20) == {START + number + 20: "incident"}
    kept.close()
    watch.close()


def test_another_mix_of_questions_freezes_nothing(tmp_path: Path):
    """It may last for ever: frozen, baselines would wait for an end that only they can bring."""
    watch, number = taught(tmp_path)
    seen = {}
    for more in range(BASELINE + 2 * LAG):
        seen[watch.engine.version] = live(watch)
        watch.take(with_canary(window(number + more, route="legal")))
        assert not watch.engine.frozen
    assert seen == {1: [("traffic", "route_mix")], 2: []}, "it is over once the next baseline has learned the new mix"
    watch.close()


def test_what_nothing_explained_is_judged_again_with_the_next_canary(tmp_path: Path):
    """Where no canary had been seen, heads alone are model or traffic; one that passes afterwards says which."""
    watch, number = taught(tmp_path, canaries=False)
    for more in range(30):
        watch.take(window(number + more, heads_move=2.0))
    assert live(watch) == [("model", "unexplained")]
    watch.take(with_canary(window(number + 30, heads_move=2.0)))
    assert [kind for kind, _ in live(watch)] == ["traffic"]
    watch.close()


def test_an_event_does_not_wait_for_the_next_one_of_its_cause(tmp_path: Path):
    """Counted figures page again every other window while a canary is waited for that never comes."""
    watch, number = taught(tmp_path)
    watch.close()
    watch = opened(tmp_path, ask=lambda: True)
    for more in range(8):
        watch.take(window(number + more, documents_absent=1.0, documents_unresolved=1.0))
    assert ("retrieval", "documents_absent") in live(watch)
    watch.close()


SIGNALS_IN_SHADOW = msgspec.structs.replace(
    CONFIG, drift=msgspec.structs.replace(CONFIG.drift, shadow_families=("signals.mean", "signals.spread"))
)


def test_families_in_shadow_record_what_they_would_have_paged_and_nothing_else_changes(tmp_path: Path):
    watch, number = taught(tmp_path, SIGNALS_IN_SHADOW)
    for more in range(20):
        seen = watch.take(with_canary(window(number + more, documents_absent=1.0)))
        assert seen.event is None, "the pager has heads alone, and they do not move"
    (incident,) = watch.book.open_incidents()
    assert (incident.verdict.drift_class, incident.verdict.cause) == ("retrieval", "documents_absent")
    assert (incident.paged, incident.silenced_why) == (False, "in shadow: signals.mean, signals.spread")
    assert not watch.engine.frozen, "what pages nobody stops no learning"
    for more in range(20, 40):
        watch.take(with_canary(window(number + more)))
    assert live(watch) == [], "it resolves like any other"
    watch.close()


def test_what_pages_is_an_incident_of_its_own_beside_what_was_found_in_shadow(tmp_path: Path):
    """An incident that nobody was told of must not swallow the page, nor a page hide what a family in shadow does."""
    level = msgspec.structs.replace(CONFIG, drift=msgspec.structs.replace(CONFIG.drift, shadow_families=("level.1",)))
    watch, number = taught(tmp_path, level)
    for more in range(30):
        watch.take(with_canary(window(number + more, heads_move=2.0, documents_absent=1.0)))
    by_page = {one.paged: one for one in watch.book.open_incidents()}
    assert set(by_page) == {True, False}
    assert by_page[True].event.shadow_families == ()
    assert by_page[False].event.shadow_families == ("level.1",)
    assert len(watch.book.list()) == 2, "each is one incident, however long it lasts"
    assert watch.engine.frozen
    watch.close()


def test_a_planned_release_that_only_a_family_in_shadow_notices_is_no_new_normal(tmp_path: Path):
    watch, number = taught(tmp_path, SIGNALS_IN_SHADOW)
    start = window(number).start_ns
    watch.book.calendar.add_deploy("index 2", who="ops", planned_seconds=3600.0, time_ns=start - SECOND)
    version = watch.engine.version
    for more in range(20):
        watch.take(with_canary(window(number + more, grounding_ratio_retrieval=0.3)))
    assert watch.book.list(), "it is found"
    assert not any(one.paged for one in watch.book.list())
    assert watch.engine.version == version
    watch.close()
