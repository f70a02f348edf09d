"""What holds of every case and of every course of events, whatever happens in which order."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from headwatch.errors import IncidentError
from headwatch.findings import CLASSES, RULINGS
from headwatch.incident.book import Book
from headwatch.incident.outbox import Outbox
from headwatch.incident.severity import pages, severity
from headwatch.incident.table import LEAST
from headwatch.incident.triage import triage

from .cases import MINUTE, NOTHING, START, canary, case, event, heads, signal, telemetry, traffic, verdict

SIGNALS = [name for name in LEAST if not name.endswith((".", ":")) and name not in {"refused_layers", "length", "load"}]
FAULTS = ["capture_up", "frames_missing_share", "refused_layers", "clock_skew_seconds", "sample_rate"]
figures = some.floats(0, 100, allow_nan=False)
runs = some.sampled_from([None, canary(failed=False), canary(failed=True, hint="weights"), canary(failed=True)])
signals = some.builds(signal, some.sampled_from(SIGNALS), figures, figures, some.floats(-20, 20))
faults = some.builds(telemetry, some.sampled_from(FAULTS), figures, figures)
ASKED = ["length", "load", "language:de", "band:1k-2k", "template:hr", "model:7b", "adapter:de", "template_version:4"]
changes = some.builds(traffic, some.sampled_from(ASKED), figures, figures)
evidence = some.lists(some.one_of(signals, some.builds(heads, some.sampled_from(["hr", "legal"]))), max_size=8)


@given(found=evidence, run=runs, faulty=some.lists(faults, max_size=2), asked=some.lists(changes, max_size=2))
def test_every_case_has_a_verdict_that_can_be_shown(found, run, faulty, asked):
    judged = case(*found, run=run, telemetry=tuple(faulty), traffic=tuple(asked))
    told = triage(judged)
    assert told == triage(judged), "the same case is judged alike"
    assert told.drift_class in CLASSES
    assert 0 <= told.confidence <= 1
    assert told.runner_up != told.drift_class
    assert bool(told.tells_apart) == (told.runner_up is not None)
    assert told.why
    assert "{" not in told.sentence
    assert severity(told, judged.event) == "info" or pages(told)


@given(found=evidence, asked=some.lists(changes, max_size=2))
def test_a_failed_canary_is_never_retrieval_or_traffic(found, asked):
    told = triage(case(*found, run=canary(failed=True, hint="weights"), traffic=tuple(asked)))
    assert told.drift_class == "model"


@given(asked=some.lists(changes.filter(lambda one: not one.name.startswith("template:")), max_size=3), run=runs)
def test_what_is_asked_alone_wakes_nobody(asked, run):
    if run is None or not run.failed:
        assert not pages(triage(case(*asked, run=run)))


OPENED = some.tuples(
    some.just("open"),
    some.sampled_from(["hr", "legal"]),
    some.sampled_from([
        ("retrieval", "documents_absent"), ("model", "weights"), ("traffic", "topics"), ("injection", "injection"),
    ]),
)  # fmt: skip
DONE = some.tuples(
    some.sampled_from(["ack", "resolve", "over", "again", "silence", "wake", "model", "release"]), some.integers(0, 9),
    some.sampled_from(RULINGS),
)  # fmt: skip
ABSENT = ("open", "hr", ("retrieval", "documents_absent"))
OVER, SILENCE, ACK = ("over", 0, "true"), ("silence", 0, "true"), ("ack", 0, "true")


class Course:
    """A book, what its routes have heard, and a clock that goes four minutes a step."""

    def __init__(self, folder: Path) -> None:
        self.now_ns = START
        self.book = Book(folder / "incidents.db", lambda: self.now_ns, routes=("webhook", "grafana"))
        self.box = Outbox(folder / "incidents.db", lambda: self.now_ns)
        self.events = []

    def step(self, name, where, what) -> None:
        self.now_ns += 4 * MINUTE
        if name == "open":
            self.events.append((event(signal("documents_absent", 0, 0.9, route=where), since_ns=self.now_ns), verdict(*what)))
            self.book.open(*self.events[-1], NOTHING)
        elif name == "silence":
            self.book.calendar.silence(600, "ada", "")
        elif name == "release":
            self.book.calendar.add_deploy("7b v3", planned_seconds=900)
        elif name == "again" and self.events:
            assert self.book.open(*self.events[where % len(self.events)], NOTHING).action == "unchanged"
        elif name != "again" and (known := self.book.list()):
            self.change(name, known[where % len(known)].id, what)

    def change(self, name, id_, ruling) -> None:
        if name == "resolve":
            self.book.resolve(id_, "ada", ruling)
        elif name == "over":
            self.book.auto_resolve(id_)
        elif name == "wake":
            self.book.wake(id_)
        elif self.book.get(id_).state == "resolved":
            with pytest.raises(IncidentError):
                self.book.reclassify(id_, verdict("model", "weights")) if name == "model" else self.book.ack(id_, "ada")
        elif name == "model":
            self.book.reclassify(id_, verdict("model", "weights"))
        else:
            self.book.ack(id_, "ada", ruling=ruling)

    def heard(self) -> dict[tuple[str, str], list[str]]:
        """Send everything; return beginnings and ends by route and incident, in order."""
        found = defaultdict(list)
        while entries := self.box.pending():
            for entry in entries:
                turns = found[entry.route, entry.incident.id]
                planned = entry.incident.silenced_why.startswith("planned") and not turns  # mirrors hear of it once, as over
                if entry.kind != "updated" and not planned:
                    turns.append(entry.kind)
                self.box.done(entry.id)
        return found


@settings(max_examples=40, deadline=None)
@example(steps=[ABSENT, OVER, SILENCE, ABSENT, OVER])
@example(steps=[ABSENT, OVER, SILENCE, ABSENT, ACK, ACK, ACK, ABSENT, OVER])
@given(steps=some.lists(some.one_of(OPENED, DONE), max_size=14))
def test_routes_hear_beginnings_and_ends_in_turn_and_have_open_what_is_open(steps):
    with tempfile.TemporaryDirectory() as folder:
        course = Course(Path(folder))
        for step in steps:
            course.step(*step)
        heard = course.heard()
        for (route, _), turns in heard.items():
            assert turns == [("opened", "resolved")[number % 2] for number in range(len(turns))], route
        for one in course.book.list():
            turns = heard.get(("webhook", one.id), [])
            assert (len(turns) % 2 == 1) == (one.paged and one.state != "resolved")
            assert len(heard["grafana", one.id]) % 2 == (one.state != "resolved")
        course.book.close()
        course.box.close()
