"""Annotations through grafana-client, against a server that speaks Grafana's annotations API as its documentation has it.

No Grafana server can be had here.  What is checked is what is sent: paths, methods, fields, units of time, the token; and that
tags are found as Grafana's own store searches them (pkg/services/annotations/annotationsimpl/xorm_store.go).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from headwatch.errors import ConfigError, ExportError
from headwatch_exporters.paging.grafana import GrafanaSender
from headwatch_exporters.paging.page import Page

from ..incidents import OPENED_NS, SECOND, incident, resolved, verdict
from .receiver import Answer, receiving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.findings import Incident

    from .receiver import Received, Receiver

TOKEN = b"glsa_0123456789abcdef"


@dataclass
class Grafana:
    """Grafana's annotations, for one organisation."""

    receiver: Receiver
    token: str = TOKEN.decode()
    marks: dict[int, dict[str, Any]] = field(default_factory=dict)

    def __call__(self, asked: Received) -> Answer:
        url = urlsplit(asked.path)
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return _json(401, {"message": "Invalid API key"})
        if (asked.method, url.path) == ("GET", "/api/annotations"):
            wanted = parse_qs(url.query)
            found = [{"id": number, **mark} for number, mark in self.marks.items() if matches(wanted["tags"], mark["tags"])]
            return _json(200, found[: int(wanted["limit"][0])])
        if (asked.method, url.path) == ("POST", "/api/annotations"):
            self.marks[len(self.marks) + 1] = json.loads(asked.body)
            return _json(200, {"message": "Annotation added", "id": len(self.marks)})
        if asked.method == "PUT" and int(url.path.removeprefix("/api/annotations/")) in self.marks:
            self.marks[int(url.path.removeprefix("/api/annotations/"))].update(json.loads(asked.body))
            return _json(200, {"message": "Annotation updated"})
        return _json(404, {"message": "Not found"})


def matches(wanted: list[str], tags: list[str]) -> bool:
    """Return whether a search for all of *wanted* finds *tags*, as Grafana counts: a key without a value hits any value."""
    pairs = [(key, value) for key, _, value in (tag.partition(":") for tag in wanted)]
    kept = [(key, value) for key, _, value in (tag.partition(":") for tag in tags)]
    return sum(any(key == name and text in {"", value} for name, text in pairs) for key, value in kept) == len(pairs)


def _json(status: int, document: object) -> Answer:
    return Answer(status, json.dumps(document).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    with receiving() as receiver:
        made = Grafana(receiver)
        receiver.answer = made
        yield made


@pytest.fixture
def sender(grafana: Grafana) -> Iterator[GrafanaSender]:
    made = GrafanaSender(grafana.receiver.url, TOKEN)
    yield made
    made.close()


def page(shown: Incident, kind: str = "opened") -> Page:
    return Page(f"{shown.id}-{kind}", kind, "vllm", shown, "https://runbooks/retrieval.md", "http://c/api/v1/incidents/1")


def test_an_incident_is_marked_where_it_began(sender: GrafanaSender, grafana: Grafana):
    sender.send(page(incident()))
    (mark,) = grafana.marks.values()
    began_ms = (OPENED_NS - 300 * SECOND) // 1_000_000
    assert (mark["time"], mark["timeEnd"]) == (began_ms, began_ms)
    assert mark["tags"] == ["headwatch", "incident:hw-0000000001", "retrieval", "critical"]
    for wanted in (["headwatch"], ["headwatch", "retrieval"], ["incident:hw-0000000001"]):
        assert matches(wanted, mark["tags"])
    assert not matches(["incident:hw-0000000002"], mark["tags"])
    assert "<b>[critical] retrieval: Documents of route support are given and not read.</b>" in mark["text"]
    assert '<a href="https://runbooks/retrieval.md">runbook</a>' in mark["text"]
    assert "dashboardUID" not in mark, "seen by every dashboard that asks for the tag"


def test_sending_it_again_changes_nothing(sender: GrafanaSender, grafana: Grafana):
    for _ in range(3):
        sender.send(page(incident(1)))
        sender.send(page(incident(2)))
    assert len(grafana.marks) == 2


def test_once_it_is_over_the_mark_is_a_region(sender: GrafanaSender, grafana: Grafana):
    sender.send(page(incident()))
    sender.send(page(resolved(seconds=600), "resolved"))
    (mark,) = grafana.marks.values()
    assert mark["timeEnd"] - mark["time"] == (600 + 300) * 1000
    assert "[resolved] retrieval" in mark["text"]


def test_an_end_whose_beginning_never_arrived_is_a_region_as_well(sender: GrafanaSender, grafana: Grafana):
    sender.send(page(resolved(), "resolved"))
    (mark,) = grafana.marks.values()
    assert mark["timeEnd"] > mark["time"]


def test_a_path_before_the_api_is_kept(grafana: Grafana):
    """Grafana may be served below a path of its own."""
    sender = GrafanaSender(f"{grafana.receiver.url}/grafana/", TOKEN)
    with pytest.raises(ExportError):
        sender.send(page(incident()))
    sender.close()
    assert grafana.receiver.received[0].path.startswith("/grafana/api/annotations?tags=incident%3Ahw-0000000001")


def test_what_others_wrote_is_no_markup(sender: GrafanaSender, grafana: Grafana):
    hostile = "<script>alert(1)</script>"
    sender.send(page(incident(verdict=verdict(sentence=hostile, tells_apart=hostile, cause=hostile))))
    (mark,) = grafana.marks.values()
    assert "<script>" not in mark["text"]
    assert mark["text"].count("&lt;script&gt;") == 3


def test_a_wrong_token_is_an_error_that_does_not_show_it(grafana: Grafana):
    sender = GrafanaSender(grafana.receiver.url, b"glsa_wrong_wrong_wrong")
    with pytest.raises(ExportError, match="Unauthorized") as caught:
        sender.send(page(incident()))
    sender.close()
    assert "glsa_" not in str(caught.value) + repr(sender)


def test_a_redirect_is_not_followed(sender: GrafanaSender, grafana: Grafana):
    """The token stays where it was meant to go."""
    with receiving() as elsewhere:
        grafana.receiver.answer = lambda _: Answer(302, headers={"Location": f"{elsewhere.url}/api/annotations"})
        with pytest.raises(ExportError):
            sender.send(page(incident()))
        assert elsewhere.received == []


LOGIN_PAGE = Answer(200, b"<html>log in</html>", {"Content-Type": "text/html"})


@pytest.mark.parametrize("answer", [Answer(500, b"oops"), LOGIN_PAGE])
def test_an_answer_that_is_none_is_an_error(sender: GrafanaSender, grafana: Grafana, answer: Answer):
    grafana.receiver.answer = lambda _: answer
    with pytest.raises(ExportError, match="Grafana http"):
        sender.send(page(incident()))


def test_a_grafana_that_is_away_is_an_error():
    sender = GrafanaSender("http://127.0.0.1:9", TOKEN)
    with pytest.raises(ExportError, match="Grafana http"):
        sender.send(page(incident()))
    sender.close()


def test_an_address_that_is_none_or_a_missing_token_is_refused_at_the_start():
    with pytest.raises(ConfigError, match="grafana_url"):
        GrafanaSender("grafana.example", TOKEN)
    with pytest.raises(ConfigError, match="grafana_token_file"):
        GrafanaSender("http://127.0.0.1:3000", b"")
