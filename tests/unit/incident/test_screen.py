"""What an engineer sees at three in the morning: in eighty columns, the most important first, and the same without colour."""

from __future__ import annotations

import re

import msgspec
import pytest
from msgspec.structs import replace

from headwatch.findings import DeployEvent, DocumentExhibit, Exhibits, Incident, PromptExhibit, RequestExhibit
from headwatch.incident.book import event_id
from headwatch.incident.figure_text import effect_text
from headwatch.incident.paint import WIDTH, clean, cut
from headwatch.incident.screen import lasted, screen
from headwatch.incident.severity import severity
from headwatch.incident.shelf import AuditEntry
from headwatch.incident.triage import triage

from .cases import MINUTE, START, canary, case, heads, signal

KIND = "16k-64k docs:9-16 turns:9-16 tools"
RUNBOOK = "https://example.org/runbooks/retrieval.md"
NOW = START + 10 * MINUTE
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def incident(**changes) -> Incident:
    found = (signal("documents_absent", 0.02, 0.78, 12.0), heads())
    judged = case(*found, run=canary(failed=False))
    verdict = triage(judged)
    exhibits = Exhibits(
        documents=(
            DocumentExhibit("hr-07/" + "very-long-name-" * 8 + "end", "wiki", "3", "", 4, 0.6, 0.0),
            DocumentExhibit("hr-08", "", "", "", 0, 0.1, None),
        ),
        requests=(RequestExhibit("chatcmpl-" + "a" * 60, "e-1", "", START + MINUTE, "hr", "absent", None, KIND),),
        canary=judged.canary,
        deploys=(DeployEvent(START - MINUTE, "index 12 " + "with a long title " * 8, "rev", "ada"),),
        prompts=(PromptExhibit(KIND, "a-route-with-a-name-that-is-rather-long", 3),),
    )
    opened = Incident(
        event_id(judged.event), "open", severity(verdict, judged.event), START + 6 * MINUTE, START + 6 * MINUTE, judged.event,
        verdict, exhibits, paged=True,
    )  # fmt: skip
    return msgspec.structs.replace(opened, **changes)


def shown(one: Incident, *, colour: bool = False, audit: tuple[AuditEntry, ...] = ()) -> str:
    return screen(one, audit, now_ns=NOW, runbook=RUNBOOK, colour=colour)


def test_every_line_fits_eighty_columns():
    told = AuditEntry(1, "hw-1", NOW, "ada", "acknowledged", "a note that is rather long " * 9)
    for line in shown(incident(), audit=(told,)).splitlines():
        assert len(line) <= WIDTH, line


def test_the_first_lines_say_what_how_bad_since_when_and_how_sure():
    first = shown(incident()).splitlines()[:10]
    text = "\n".join(first)
    assert first[0].split() == [incident().id, "retrieval:", "documents_absent", "CRITICAL"]
    assert "open for 4 min · smol · route hr · paged" in text
    assert "requests come without documents (78% of them, 2.0% before)." in text
    assert "0.88 sure; next best: traffic" in text


def test_it_names_heads_documents_requests_the_canary_and_the_release():
    text = shown(incident())
    for name in ("layer 12 head  0  lookback", "hr-08", "chatcmpl-", "Fixed prompt passed", "RELEASES near the start"):
        assert name in text
    assert re.search(r"hr-07/very-long-name-.*…", text), "a long name is cut in its middle"


def test_a_request_is_shown_with_its_id_its_route_and_the_kind_of_its_prompt():
    usual = RequestExhibit("chatcmpl-b736f93c95625b42", "e", "", START, "support", "measured", 0.05, "1k-4k docs:3-4 turns:0")
    other = replace(usual, state="unresolved", grounding_ratio=None, kind="")
    text = shown(incident(exhibits=Exhibits(requests=(usual, other))))
    assert "chatcmpl-b736f93c95625b42 support   08:00:00 1k-4k docs:3-4 turns:0        0.050" in text
    assert "chatcmpl-b736f93c95625b42 support   08:00:00 -                        unresolved" in text


def test_prompts_that_draw_labelled_documents_are_shown_by_kind_and_route():
    assert re.search(rf"KINDS OF PROMPTS that draw it .*\n{KIND} +a-route-with\S+…\S+ +3\n", shown(incident()))
    assert "KINDS OF PROMPTS" not in shown(incident(exhibits=Exhibits()))


def test_it_ends_with_what_to_do_next():
    last = shown(incident()).splitlines()[-7:]
    assert last[0] == "NEXT"
    assert RUNBOOK in last[2]
    assert f"headwatch incident ack {incident().id[3:9]}" in last[3]
    assert "--ruling RULING" in last[5]
    assert "true, false_page or known_change" in last[6]


def test_what_is_done_is_not_offered_again():
    ended = incident(state="resolved", resolved_ns=NOW - MINUTE, resolved_by="ada", ruling="true")
    assert "incident ack" not in shown(ended)
    assert "incident resolve" not in shown(ended)
    assert "resolved by ada 60 s ago, a true page" in shown(ended)
    assert "incident resolve" in shown(msgspec.structs.replace(ended, ruling=None)), "a ruling is still wanted"


def test_who_took_it_is_shown_with_what_they_ruled():
    taken = incident(state="acknowledged", acknowledged_ns=NOW - 4 * MINUTE, acknowledged_by="ada")
    assert "acknowledged by ada 4 min ago · " in shown(taken)
    ruled = shown(msgspec.structs.replace(taken, ruling="false_page"))
    assert "acknowledged by ada 4 min ago, a false page · " in ruled
    assert "incident resolve" in ruled


def test_colour_adds_no_word_and_takes_none():
    plain, coloured = shown(incident()), shown(incident(), colour=True)
    assert ANSI.search(coloured)
    assert not ANSI.search(plain)
    assert ANSI.sub("", coloured) == plain


def test_a_failed_canary_says_from_which_layer():
    run = canary(failed=True, hint="weights")
    told = shown(incident(exhibits=Exhibits(canary=run)))
    assert "Fixed prompt FAILED" in told
    assert "from layer 7 on, looks like weights" in told


def test_an_incident_that_paged_nobody_says_why():
    assert "no page (silence 3 by ada)" in shown(incident(paged=False, silenced=True, silenced_why="silence 3 by ada"))


def test_evidence_that_came_later_is_counted_and_does_not_hide_what_people_did():
    told = [AuditEntry(1, "hw-1", START, "headwatch", "opened", ""), AuditEntry(2, "hw-1", START, "ada", "acknowledged", "")]
    again = [AuditEntry(3 + n, "hw-1", START + n * MINUTE, "headwatch", "merged", "") for n in range(40)]
    text = shown(incident(), audit=(*told, *again))
    assert "Found again 40 times since, last at 2027-01-15 08:39:00 UTC" in text
    assert "acknowledged by ada" in text
    assert "merged" not in text


def test_what_a_client_sends_cannot_steer_a_terminal():
    evil = DocumentExhibit("\x1b[2J\x1b]0;owned\x07doc\n", "wiki", "1", "", 1, 0.1, 0.2)
    text = shown(incident(exhibits=Exhibits(documents=(evil,))))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert clean("a\tb\u202ec") == "a?b?c"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (59, "59 s"), (121, "2 min"), (7300, "2 h"), (200_000, "2 d")])
def test_durations_are_said_as_a_person_would(seconds, text):
    assert lasted(seconds * 10**9) == text


@pytest.mark.parametrize(
    ("effect", "text"), [(-1.54, "-1.5 sd"), (99.94, "+99.9 sd"), (-953_678.5, "<-99 sd"), (4e6, ">+99 sd")]
)
def test_effects_fit_their_column_however_large(effect, text):
    assert effect_text(effect) == text


@pytest.mark.parametrize("width", [5, 9, 40])
def test_a_cut_keeps_both_ends_and_the_width(width):
    text = cut("abcdefghij" * 9, width)
    assert len(text) == width
    assert text[0] == "a"
    assert text[-1] == "j"
    assert cut("short", 40) == "short"
