"""What a person says a page was: when it is taken, when it is closed or afterwards; counted once."""

from __future__ import annotations

import pytest

from headwatch.errors import IncidentError

from .cases import NOTHING, event, heads, signal, verdict
from .test_book import NO_DOCUMENTS


def test_a_person_acknowledges_and_rules_and_the_audit_says_so(book, clock):
    id_ = book.open(NO_DOCUMENTS, verdict(), NOTHING).incident.id
    clock.pass_minutes(4)
    assert book.ack(id_, "ada", "looking").state == "acknowledged"
    clock.pass_minutes(20)
    ended = book.resolve(id_, "ada", "true", "index was empty")
    assert (ended.state, ended.ruling, ended.resolved_by, ended.note) == ("resolved", "true", "ada", "index was empty")
    told = [(line.who, line.what) for line in book.history(id_)]
    assert told == [("headwatch", "opened"), ("ada", "acknowledged"), ("ada", "resolved")]
    with pytest.raises(IncidentError, match="is resolved already"):
        book.ack(id_, "ada")


def test_a_ruling_at_ack_counts_at_once_and_a_later_one_takes_its_place(book):
    id_ = book.open(NO_DOCUMENTS, verdict(), NOTHING).incident.id
    assert book.ack(id_, "ada", "known at once", "true").ruling == "true"
    assert book.precision() == {"retrieval": (1, 1)}
    assert book.ack(id_, "bob").ruling == "true", "who says nothing takes nothing back"
    assert book.auto_resolve(id_).incident.ruling == "true"
    assert book.resolve(id_, "ada", "false_page").ruling == "false_page"
    assert book.precision() == {"retrieval": (0, 1)}, "one incident, counted once"
    notes = [(line.what, line.note) for line in book.history(id_) if line.who != "headwatch"]
    assert notes == [("acknowledged", "true: known at once"), ("acknowledged", ""), ("ruled", "false_page")]


def test_a_ruling_is_wanted_again_where_a_later_verdict_is_of_another_class(book):
    id_ = book.open(event(heads()), verdict("model", "unexplained", 0.4), NOTHING).incident.id
    book.ack(id_, "ada", ruling="true")
    assert book.reclassify(id_, verdict("model", "weights", 0.8)).incident.ruling == "true", "the same class, better explained"
    assert book.reclassify(id_, verdict("traffic", "topics"), "canary run").incident.ruling is None
    assert "it was ruled true as model" in book.history(id_)[-1].note
    assert book.precision() == {}


def test_what_resolved_by_itself_is_ruled_afterwards(book):
    id_ = book.open(NO_DOCUMENTS, verdict(), NOTHING).incident.id
    assert book.auto_resolve(id_).incident.resolved_by == "headwatch"
    assert book.auto_resolve(id_).action == "unchanged"
    assert book.resolve(id_, "ada", "false_page").resolved_by == "headwatch"
    assert book.get(id_).ruling == "false_page"


def test_precision_counts_pages_by_class_and_only_those_that_were_ruled(book):
    rulings = {"hr": "true", "legal": "false_page", "it": "known_change", "ops": None}
    for minute, (route, ruling) in enumerate(rulings.items()):
        found = event(signal("documents_absent", 0, 0.9, route=route), windows=minute + 3)
        id_ = book.open(found, verdict(), NOTHING).incident.id
        if ruling:
            book.resolve(id_, "ada", ruling)
    book.open(event(heads("web")), verdict("traffic", "topics"), NOTHING)
    assert book.precision() == {"retrieval": (1, 3)}
    assert book.paged() == {"telemetry": 0, "model": 0, "injection": 0, "retrieval": 4, "traffic": 0}
