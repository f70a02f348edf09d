"""One cause is one incident: opened once, told of once, merged, silenced, reopened and closed, with who did what."""

from __future__ import annotations

import sqlite3
import stat
import threading

import msgspec
import pytest

from headwatch.errors import IncidentError
from headwatch.findings import Exhibits, RequestExhibit
from headwatch.incident import book as module
from headwatch.incident.book import Book, event_id
from headwatch.incident.ledger import SCHEMA
from headwatch.incident.outbox import Outbox

from .cases import MINUTE, NOTHING, START, event, heads, signal, telemetry, verdict

ABSENT = signal("documents_absent", 0.0, 0.9)
NO_DOCUMENTS = event(ABSENT)


def sent(outbox: Outbox) -> list[tuple[str, str, bool]]:
    """Send everything that is pending; return kind, route and whether it pages."""
    found = []
    while entries := outbox.pending():
        for entry in entries:
            found.append((entry.kind, entry.route, entry.page))
            outbox.done(entry.id)
    return found


def later(minutes: int, *found):
    return event(*found, since_ns=START + minutes * MINUTE)


def test_an_event_opens_an_incident_and_is_told_to_the_route_that_pages_and_the_mirrors(book, outbox):
    change = book.open(NO_DOCUMENTS, verdict(), NOTHING)
    assert (change.action, change.incident.state, change.incident.severity) == ("opened", "open", "critical")
    assert change.incident.paged
    assert sent(outbox) == [("opened", "webhook", True), ("opened", "grafana", False)]
    assert book.get(change.incident.id) == change.incident


def test_the_same_event_again_changes_nothing_and_sends_nothing(book, outbox, clock):
    first = book.open(NO_DOCUMENTS, verdict(), NOTHING)
    sent(outbox)
    clock.pass_minutes(3)
    again = book.open(NO_DOCUMENTS, verdict(), NOTHING)
    assert (again.action, again.incident) == ("unchanged", first.incident)
    assert sent(outbox) == []
    assert len(book.list()) == 1


def test_the_id_is_of_the_model_and_the_window_so_a_replay_gives_it_again(book):
    other_window = event(ABSENT, windows=7)
    assert event_id(NO_DOCUMENTS) == event_id(event(ABSENT)) != event_id(other_window)
    assert book.open(NO_DOCUMENTS, verdict(), NOTHING).incident.id == event_id(NO_DOCUMENTS)


def test_evidence_that_starts_together_and_shares_a_stratum_is_one_incident(book):
    first = book.open(event(heads()), verdict("traffic", "topics", 0.7), NOTHING)
    second = book.open(later(1, heads(), ABSENT), verdict(), NOTHING)
    assert (second.action, second.incident.id) == ("updated", first.incident.id)
    assert second.incident.verdict.drift_class == "retrieval", "the later verdict explains more"
    assert len(book.events(first.incident.id)) == 2


def test_traffic_that_turns_out_to_be_retrieval_pages_then(book, outbox):
    book.open(event(heads()), verdict("traffic", "topics", 0.7), NOTHING)
    assert sent(outbox) == [("opened", "grafana", False)]
    book.open(later(1, heads(), ABSENT), verdict(), NOTHING)
    assert sent(outbox) == [("opened", "webhook", True), ("updated", "grafana", False)]


def test_traffic_that_turns_out_to_be_retrieval_shows_what_was_found_then(book):
    first = book.open(event(heads()), verdict("traffic", "topics", 0.7), NOTHING)
    found = later(1, heads(), ABSENT)
    shown = Exhibits(requests=(RequestExhibit("r-1", "r-1", "", START, "hr", "absent", None),))
    second = book.open(found, verdict(), shown)
    assert (second.incident.id, second.incident.event, second.incident.exhibits) == (first.incident.id, found, shown)
    third = book.open(later(2, heads(), ABSENT), verdict("model", "weights", 0.95), NOTHING)
    assert (third.action, third.incident.exhibits) == ("updated", shown), "what a page has shown stays"


def test_later_evidence_must_be_surer_to_say_injection_where_retrieval_was_said(book):
    first = book.open(event(ABSENT, heads()), verdict("retrieval", "wrong_documents", 0.72), NOTHING)
    less = book.open(later(1, ABSENT, heads()), verdict("injection", "injection", 0.66), NOTHING)
    assert (less.action, less.incident.verdict.drift_class) == ("merged", "retrieval")
    more = book.open(later(2, ABSENT, heads()), verdict("injection", "injection", 0.8), NOTHING)
    assert (more.action, more.incident.verdict.drift_class) == ("updated", "injection")
    assert more.incident.id == first.incident.id
    proof = book.open(later(3, heads()), verdict("model", "weights", 0.7), NOTHING)
    assert proof.incident.verdict.drift_class == "model", "a failed canary explains it all"


def test_the_same_cause_found_again_is_merged_and_pages_nobody(book, outbox):
    first = book.open(NO_DOCUMENTS, verdict(), NOTHING)
    sent(outbox)
    again = book.open(later(40, ABSENT), verdict(), NOTHING)
    assert (again.action, again.incident.id) == ("merged", first.incident.id)
    assert sent(outbox) == []
    assert again.incident.event == NO_DOCUMENTS, "what was shown at the opening stays"


def test_another_cause_on_another_route_is_another_incident(book):
    first = book.open(NO_DOCUMENTS, verdict(), NOTHING)
    other = later(40, signal("stale_age_days", 5, 90, route="legal"))
    second = book.open(other, verdict("retrieval", "stale_documents"), NOTHING)
    assert second.action == "opened"
    assert second.incident.id != first.incident.id
    assert [one.id for one in book.open_incidents()] == [first.incident.id, second.incident.id]


def test_the_same_cause_on_another_route_is_another_incident(book):
    book.open(NO_DOCUMENTS, verdict(), NOTHING)
    assert book.open(later(40, signal("documents_absent", 0, 0.9, route="legal")), verdict(), NOTHING).action == "opened"


def test_a_model_incident_takes_in_what_the_heads_of_other_routes_show(book):
    first = book.open(event(heads()), verdict("model", "weights"), NOTHING)
    second = book.open(later(30, heads("legal", "smol|1|-|legal|<512|decode")), verdict("traffic", "topics"), NOTHING)
    assert (second.action, second.incident.id) == ("merged", first.incident.id)


def test_another_model_never_merges(book):
    book.open(NO_DOCUMENTS, verdict(), NOTHING)
    assert book.open(msgspec.structs.replace(NO_DOCUMENTS, model="other"), verdict(), NOTHING).action == "opened"


def test_a_cause_that_comes_back_soon_reopens_its_incident_and_pages_again(book, outbox, clock):
    first = book.open(NO_DOCUMENTS, verdict(), NOTHING)
    book.auto_resolve(first.incident.id)
    assert sorted(sent(outbox))[-2:] == [("resolved", "grafana", False), ("resolved", "webhook", True)]
    clock.pass_minutes(30)
    again = book.open(later(30, ABSENT), verdict(), NOTHING)
    assert (again.action, again.incident.id, again.incident.reopened) == ("reopened", first.incident.id, 1)
    assert again.incident.state == "open"
    assert sent(outbox) == [("opened", "webhook", True), ("opened", "grafana", False)]


def test_a_cause_that_comes_back_late_is_a_new_incident(book, clock):
    first = book.open(NO_DOCUMENTS, verdict(), NOTHING)
    book.auto_resolve(first.incident.id)
    clock.pass_minutes(61)
    assert book.open(later(61, ABSENT), verdict(), NOTHING).action == "opened"


def test_what_was_a_known_change_is_not_reopened(book, clock):
    first = book.open(NO_DOCUMENTS, verdict(), NOTHING)
    book.resolve(first.incident.id, "ada", "known_change")
    clock.pass_minutes(5)
    assert book.open(later(5, ABSENT), verdict(), NOTHING).action == "opened"


def test_traffic_wakes_nobody(book, outbox):
    change = book.open(event(heads()), verdict("traffic", "topics"), NOTHING)
    assert not change.incident.paged
    assert sent(outbox) == [("opened", "grafana", False)]
    book.auto_resolve(change.incident.id)
    assert sent(outbox) == [("resolved", "grafana", False)]


def test_shadow_mode_records_and_tells_the_mirrors_alone(book, outbox):
    change = book.open(NO_DOCUMENTS, verdict(), NOTHING, shadow=True)
    assert (change.action, change.incident.silenced, change.incident.silenced_why) == ("silenced", True, "shadow mode")
    assert sent(outbox) == [("opened", "grafana", False)]


def test_what_a_family_in_shadow_found_neither_wakes_nor_quietens(book, outbox):
    found = msgspec.structs.replace(NO_DOCUMENTS, shadow_families=("lasting.8",))
    hidden, paged = (book.open(one, verdict(), NOTHING) for one in (found, NO_DOCUMENTS))
    assert (hidden.action, hidden.incident.silenced_why, paged.action) == ("silenced", "in shadow: lasting.8", "opened")
    book.auto_resolve(paged.incident.id)
    again = msgspec.structs.replace(found, time_ns=found.time_ns + MINUTE)
    assert (book.open(again, verdict(), NOTHING).action, len(book.list())) == ("merged", 2)


def test_a_silence_holds_for_its_class_and_route_and_time(book, outbox, clock):
    book.calendar.silence(600, "ada", "reindexing", drift_class="retrieval", route="hr")
    silenced = book.open(NO_DOCUMENTS, verdict(), NOTHING)
    assert silenced.action == "silenced"
    assert silenced.incident.silenced_why == "silence 1 by ada: reindexing"
    other = book.open(event(heads("legal")), verdict("model", "weights"), NOTHING)
    assert other.action == "opened"
    assert [kind for kind in sent(outbox) if kind[2]] == [("opened", "webhook", True)]


def test_a_silence_that_ends_while_the_evidence_lasts_pages_then(book, outbox, clock):
    book.calendar.silence(300, "ada", "reindexing")
    book.open(NO_DOCUMENTS, verdict(), NOTHING)
    clock.pass_minutes(10)
    again = book.open(later(16, ABSENT), verdict(), NOTHING)
    assert not again.incident.silenced
    assert ("opened", "webhook", True) in sent(outbox)


def test_a_silence_can_be_ended_and_is_then_unknown(book):
    one = book.calendar.silence(600, "ada", "")
    assert book.calendar.silences() == [one]
    book.calendar.end_silence(one.number)
    assert book.calendar.silences() == []
    with pytest.raises(IncidentError, match="no silence 1 is in force"):
        book.calendar.end_silence(one.number)


def test_what_begins_in_a_maintenance_window_is_a_known_change_and_baselines_are_learned_anew(book, outbox):
    book.calendar.add_deploy("7b v2", planned_seconds=1800, time_ns=START - 5 * MINUTE)
    change = book.open(event(heads()), verdict("model", "weights"), NOTHING)
    assert (change.action, change.rebase) == ("known_change", True)
    assert (change.incident.state, change.incident.ruling) == ("resolved", "known_change")
    assert sent(outbox) == [("resolved", "grafana", False)]
    again = book.open(event(heads()), verdict("model", "weights"), NOTHING)
    assert (again.action, again.rebase) == ("unchanged", True), "a kill in between must not lose the rebase"


def test_a_release_without_a_planned_duration_pages_as_usual(book):
    book.calendar.add_deploy("7b v2", time_ns=START - 5 * MINUTE)
    assert book.open(event(heads()), verdict("model", "weights"), NOTHING).action == "opened"


@pytest.mark.parametrize("cause", ["injection", "forbidden_documents", "other_tenant", "documents_absent"])
def test_no_release_plans_what_hurts_a_user(book, cause):
    book.calendar.add_deploy("index v2", planned_seconds=1800, time_ns=START - 5 * MINUTE)
    named = "injection" if cause == "injection" else "retrieval"
    assert book.open(NO_DOCUMENTS, verdict(named, cause), NOTHING).action == "opened"


def test_a_canary_that_comes_in_later_changes_the_verdict_and_the_routes_hear_of_it(book, outbox):
    id_ = book.open(event(heads()), verdict("model", "unexplained", 0.4), NOTHING).incident.id
    sent(outbox)
    change = book.reclassify(id_, verdict("model", "weights", 0.95), "canary run")
    assert (change.action, change.incident.verdict.cause) == ("updated", "weights")
    assert sent(outbox) == [("updated", "webhook", True), ("updated", "grafana", False)]
    assert book.reclassify(id_, verdict("model", "weights", 0.95)).action == "unchanged"


def test_changes_are_polled_by_number(book):
    id_ = book.open(NO_DOCUMENTS, verdict(), NOTHING).incident.id
    seen = book.changes(0)[-1].number
    assert book.changes(seen) == []
    book.resolve(id_, "ada", "known_change")
    (line,) = book.changes(seen)
    assert (line.incident, line.what, line.note) == (id_, "resolved", "known_change")


def test_an_incident_is_found_by_the_beginning_of_its_id(book):
    id_ = book.open(NO_DOCUMENTS, verdict(), NOTHING).incident.id
    assert book.get(id_[:6]).id == book.get(id_.removeprefix("hw-")[:4]).id == id_
    for wrong in ("zz", "", "%"):
        with pytest.raises(IncidentError, match=r"there is (no|more than one) incident"):
            book.get(wrong)


def test_lists_are_newest_first_and_by_state(book, clock):
    first = book.open(NO_DOCUMENTS, verdict(), NOTHING).incident.id
    clock.pass_minutes(100)
    stale = later(100, signal("stale_age_days", 1, 90, route="legal"))
    second = book.open(stale, verdict(cause="stale_documents"), NOTHING).incident.id
    assert [one.id for one in book.list()] == [second, first]
    book.ack(first, "ada")
    assert [one.id for one in book.list("open")] == [second]
    assert [one.id for one in book.list("live")] == [second, first]
    assert [one.id for one in book.list("acknowledged", limit=1)] == [first]


def test_two_processes_may_write_at_the_same_time(tmp_path, clock, book):
    """Two books on one file, as the sidecar and a command have them; nothing is lost and nobody fails."""
    other = Book(tmp_path / "incidents.db", clock)
    ids = [
        book.open(event(signal("documents_absent", 0, 0.9, route=f"r{n}"), windows=n + 3), verdict(), NOTHING).incident.id
        for n in range(20)
    ]
    threads = [
        threading.Thread(target=lambda book=one, who=who: [book.ack(id_, who) for id_ in ids])
        for one, who in ((book, "ada"), (other, "bob"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(book.history(id_)) == 3 for id_ in ids)
    other.close()


def test_the_file_is_private_and_a_newer_one_is_left_alone(tmp_path, book):
    path = tmp_path / "incidents.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as file:
        file.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    file.close()
    with pytest.raises(IncidentError, match="newer headwatch"):
        Book(path)


def test_a_file_that_is_none_is_refused_in_one_line(tmp_path):
    (tmp_path / "incidents.db").write_text("this is no database, " * 100)
    with pytest.raises(IncidentError, match="cannot be opened"):
        Book(tmp_path / "incidents.db")


def test_resolved_incidents_beyond_the_bound_go_with_all_that_was_written(book, clock):
    for minute in range(5):
        clock.pass_minutes(100)
        id_ = book.open(event(ABSENT, since_ns=START + minute * 100 * MINUTE), verdict(), NOTHING).incident.id
        book.resolve(id_, "ada", "true")
    with book._ledger.change() as file:
        book._prune(file, keep=2)
    assert len(book.list()) == 2
    assert {line.incident for line in book.changes(0)} == {one.id for one in book.list()}


def test_incidents_that_were_resolved_too_long_ago_go_and_live_ones_stay(book, clock):
    ids = []
    for minute in range(3):
        clock.pass_minutes(100)
        ids.append(book.open(event(ABSENT, since_ns=START + minute * 100 * MINUTE), verdict(), NOTHING).incident.id)
        if minute < 2:
            book.resolve(ids[-1], "ada", "true")
    book.forget_resolved(book.get(ids[1]).resolved_ns)
    assert {one.id for one in book.list()} == set(ids[1:])
    book.forget_resolved(2**62)
    assert [one.id for one in book.list()] == ids[2:]
    assert {line.incident for line in book.changes(0)} == {ids[2]}


def test_a_cause_that_is_found_for_weeks_is_kept_short_and_every_finding_stays_known(book, monkeypatch):
    monkeypatch.setattr(module, "EVENTS_KEPT", 3)
    found = [later(9 * number, ABSENT) for number in range(6)]
    (id_,) = {book.open(one, verdict(), NOTHING).incident.id for one in found}
    assert book.events(id_) == found[:3]
    assert {book.open(one, verdict(), NOTHING).action for one in found} == {"unchanged"}


def test_telemetry_incidents_of_a_model_are_one_at_a_time(book):
    first = book.open(event(telemetry("capture_up", 1, 0)), verdict("telemetry", "capture_down"), NOTHING)
    second = book.open(later(50, telemetry("refused_layers", 0, 3)), verdict("telemetry", "layers_refused"), NOTHING)
    assert second.incident.id == first.incident.id
