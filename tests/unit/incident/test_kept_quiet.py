"""What keeps a page from being sent is asked whenever one would be, and its changes of an incident are in order."""

from __future__ import annotations

import msgspec
import pytest

from headwatch.incident.silences import MAX_PLANNED_SECONDS, planned_by

from .cases import MINUTE, NOTHING, START, event, evidence, heads, signal, verdict

ABSENT = signal("documents_absent", 0.0, 0.9)
IGNORED = signal("document_mass", 0.5, 0.2)
TRAFFIC = verdict("traffic", "topics", 0.7)
RETRIEVAL = verdict("retrieval", "documents_ignored", 0.9)
MODEL = verdict("model", "weights", 0.95)


def pages(outbox) -> list[str]:
    return [entry.kind for entry in outbox.pending() if entry.page]


def later(minutes: int, *found):
    return event(*found, since_ns=START + minutes * MINUTE)


def failed_canary(passed: int, failed: int):
    """A canary that passed for the last time at minute *passed*, and failed first at minute *failed*."""
    one = evidence("canary", "short", 0.0, 0.02, 9.0, route="", since_ns=START + passed * MINUTE)
    found = msgspec.structs.replace(one, seen_ns=START + failed * MINUTE)
    return event(found, since_ns=found.since_ns, windows=failed - passed)


def test_evidence_that_merges_into_traffic_under_a_silence_pages_nobody_until_the_silence_is_over(book, outbox, clock):
    book.open(event(heads()), TRAFFIC, NOTHING)
    book.calendar.silence(1200, "ada", "reindexing", drift_class="retrieval")
    merged = book.open(later(1, heads(), ABSENT), verdict(), NOTHING).incident
    assert (merged.verdict.drift_class, merged.paged, merged.silenced) == ("retrieval", False, True)
    assert merged.silenced_why == "silence 1 by ada: reindexing"
    assert book.wake(merged.id).action == "unchanged", "it holds still"
    assert pages(outbox) == []
    clock.pass_minutes(30)
    woken = book.wake(merged.id)
    assert (woken.action, woken.incident.paged, woken.incident.silenced) == ("updated", True, False)
    assert pages(outbox) == ["opened"]
    assert book.wake(merged.id).action == "unchanged", "once"


def test_evidence_that_merges_in_shadow_mode_pages_nobody(book, outbox):
    book.open(event(heads()), TRAFFIC, NOTHING)
    assert not book.open(later(1, heads(), ABSENT), verdict(), NOTHING, shadow=True).incident.paged
    assert pages(outbox) == []


def test_a_verdict_that_is_judged_again_under_a_silence_or_in_shadow_mode_pages_nobody(book, outbox):
    first = book.open(event(heads()), TRAFFIC, NOTHING).incident
    assert book.reclassify(first.id, verdict("model", "unexplained", 0.5), shadow=True).incident.silenced_why == "shadow mode"
    book.calendar.silence(3600, "ada", "release", drift_class="model")
    assert book.reclassify(first.id, MODEL).incident.silenced_why == "silence 1 by ada: release"
    assert pages(outbox) == []
    book.reclassify(first.id, verdict("retrieval", "wrong_documents"))
    assert pages(outbox) == ["opened"], "the silence was of another class"


def test_a_silence_is_held_against_what_the_page_would_say(book, outbox, clock):
    """A silence of retrieval does not keep a model incident quiet because evidence that was added looked like retrieval."""
    book.calendar.silence(300, "ada", "", drift_class="model")
    first = book.open(event(heads()), MODEL, NOTHING).incident
    book.calendar.silence(7200, "ada", "", drift_class="retrieval")
    clock.pass_minutes(10)
    assert book.open(later(1, heads(), IGNORED), RETRIEVAL, NOTHING).incident.id == first.id
    assert pages(outbox) == ["opened"]


def test_a_planned_change_is_no_part_of_traffic_that_is_open_and_pages_nobody(book, outbox):
    traffic = book.open(event(heads()), TRAFFIC, NOTHING).incident
    book.calendar.add_deploy("index 7", planned_seconds=1800, time_ns=START + MINUTE)
    change = book.open(later(2, heads(), IGNORED), RETRIEVAL, NOTHING)
    assert (change.action, change.rebase, change.incident.ruling) == ("known_change", True, "known_change")
    assert book.get(traffic.id).verdict == TRAFFIC
    assert pages(outbox) == []


def test_a_planned_change_reopens_nothing(book, outbox, clock):
    first = book.open(event(heads(), IGNORED), RETRIEVAL, NOTHING).incident
    book.auto_resolve(first.id)
    clock.pass_minutes(20)
    book.calendar.add_deploy("index 7", planned_seconds=1800, time_ns=START + 20 * MINUTE)
    change = book.open(later(25, IGNORED), RETRIEVAL, NOTHING)
    assert (change.action, change.incident.id != first.id) == ("known_change", True)
    assert pages(outbox) == ["opened"], "the first one's, before it"


def test_what_has_paged_takes_in_what_belongs_to_it_during_a_release(book, outbox):
    first = book.open(event(heads(), IGNORED), RETRIEVAL, NOTHING).incident
    book.calendar.add_deploy("index 7", planned_seconds=1800, time_ns=START + 20 * MINUTE)
    change = book.open(later(25, IGNORED), RETRIEVAL, NOTHING)
    assert (change.action, change.incident.id, change.rebase) == ("merged", first.id, False)


def test_what_nobody_was_told_of_and_now_shows_to_be_planned_is_closed(book, outbox):
    """The release was marked after it had been found."""
    first = book.open(event(heads()), TRAFFIC, NOTHING).incident
    book.calendar.add_deploy("7b v3", planned_seconds=1800, time_ns=START + MINUTE)
    change = book.reclassify(first.id, MODEL)
    assert (change.action, change.rebase) == ("known_change", True)
    assert (change.incident.state, change.incident.ruling) == ("resolved", "known_change")
    assert change.incident == book.get(first.id)
    assert pages(outbox) == []


@pytest.mark.parametrize(("passed", "failed", "planned"), [
    (2, 4, True),  # both inside
    (-6, 2, True),  # a release that was marked after the last pass
    (8, 40, True),  # changed inside, or after the end: nobody knows
    (-9, -4, False),  # failed before it
    (11, 16, False),  # passed after its end
])  # fmt: skip
def test_a_canary_is_planned_where_the_maintenance_window_lies_between_its_last_pass_and_its_first_failure(
    book, passed, failed, planned
):
    deploy = book.calendar.add_deploy("7b v3", planned_seconds=600, time_ns=START)
    assert planned_by(failed_canary(passed, failed), MODEL, [deploy]) == (deploy if planned else None)


def test_the_longest_maintenance_window_is_looked_for(book):
    book.calendar.add_deploy("a long migration", planned_seconds=MAX_PLANNED_SECONDS, time_ns=START)
    late = event(heads(), since_ns=START + int(MAX_PLANNED_SECONDS * 1e9) - MINUTE)
    assert book.open(late, MODEL, NOTHING).action == "known_change"


def test_what_keeps_the_latest_change_of_an_incident_keeps_that(book, clock):
    """People go by the clock on the wall, detection by the ends of windows, which lie before it."""
    changes = [book.open(event(heads()), TRAFFIC, NOTHING, START + 6 * MINUTE).incident]
    clock.pass_minutes(5)
    changes.append(book.ack(changes[0].id, "ada"))
    changes.append(book.open(later(1, heads(), ABSENT), verdict(), NOTHING, START + 7 * MINUTE).incident)
    changes.append(book.reclassify(changes[0].id, MODEL).incident)
    changes.append(book.ack(changes[0].id, "bob"))
    changes.append(book.auto_resolve(changes[0].id, START + 8 * MINUTE).incident)
    changes.append(book.open(later(3, heads()), MODEL, NOTHING, START + 9 * MINUTE).incident)
    changes.append(book.resolve(changes[0].id, "ada", "true"))
    assert [one.state for one in changes] == [
        "open", "acknowledged", "acknowledged", "acknowledged", "acknowledged", "resolved", "open", "resolved",
    ]  # fmt: skip
    assert changes[-1] == book.get(changes[0].id)
    times = [one.updated_ns for one in changes]
    assert times == sorted(set(times)), "each is later than the one before"
