"""``headwatch incident`` and ``headwatch deploy-event``: on the file, with one document on stdout and one line for an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from headwatch.cli.durations import duration
from headwatch.cli.main import main
from headwatch.findings import Exhibits
from headwatch.incident.book import Book

from .cases import MODEL, ROUTE, event, signal, verdict

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("HEADWATCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEADWATCH_DRIFT_FOLDER", str(tmp_path / "drift"))
    monkeypatch.setenv("LOGNAME", "ada")
    return tmp_path / "drift"


@pytest.fixture
def opened(folder: Path) -> str:
    """The id of an incident that the sidecar opened."""
    book = Book(folder / "incidents.db", routes=("webhook",))
    id_ = book.open(event(signal("documents_absent", 0.0, 0.9)), verdict(), Exhibits()).incident.id
    book.close()
    return id_


def answer(capsys: pytest.CaptureFixture[str], *arguments: str):
    """Return the JSON document that a command printed."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that a command refused with; its stdout is empty."""
    assert main(list(arguments)) != 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return shown.err


def test_before_anything_was_found_the_list_is_empty_and_no_file_is_made(folder, capsys):
    assert answer(capsys, "incident", "list") == {"incidents": [], "precision": {}}
    assert main(["incident", "list"]) == 0
    assert capsys.readouterr().out == "No incidents.\n"
    assert "no incident has been kept yet" in refused(capsys, "incident", "show", "abc")
    assert not folder.exists()


def test_an_incident_is_listed_and_shown(opened, capsys):
    assert [one["id"] for one in answer(capsys, "incident", "list")["incidents"]] == [opened]
    assert main(["incident", "list", "--state", "live"]) == 0
    assert f"{opened}  " in capsys.readouterr().out
    assert answer(capsys, "incident", "list", "--state", "resolved")["incidents"] == []
    shown = answer(capsys, "incident", "show", opened[3:8])
    assert shown["incident"]["event"]["model"] == MODEL
    assert shown["runbook"].endswith("/docs/runbooks/retrieval.md")
    assert [line["what"] for line in shown["history"]] == ["opened"]


def test_without_an_id_the_latest_that_is_open_is_shown(folder, opened, capsys):
    other = event(signal("stale_age_days", 1, 90, route="legal"), windows=9)
    with_book = Book(folder / "incidents.db")
    later = with_book.open(other, verdict(cause="stale_documents"), Exhibits()).incident.id
    assert answer(capsys, "incident", "show")["incident"]["id"] == later
    with_book.resolve(later, "ada", "true")
    assert answer(capsys, "incident", "show")["incident"]["id"] == opened
    with_book.resolve(opened, "ada", "true")
    assert answer(capsys, "incident", "show")["incident"]["id"] == later
    with_book.close()


def test_show_is_plain_into_a_pipe_and_coloured_where_that_is_asked_for(opened, capsys, monkeypatch):
    assert main(["incident", "show", opened]) == 0
    assert "\x1b[" not in capsys.readouterr().out
    assert main(["incident", "show", opened, "--color", "always"]) == 0
    assert "\x1b[" in capsys.readouterr().out


def test_a_person_takes_it_and_closes_it_and_pages_are_counted(opened, capsys):
    assert answer(capsys, "incident", "ack", opened, "--note", "mine")["acknowledged_by"] == "ada"
    ended = answer(capsys, "incident", "resolve", opened, "--ruling", "true", "--note", "index was empty", "--who", "bob")
    assert (ended["state"], ended["ruling"], ended["resolved_by"]) == ("resolved", "true", "bob")
    assert answer(capsys, "incident", "list")["precision"] == {"retrieval": {"true": 1, "ruled": 1}}
    assert main(["incident", "list"]) == 0
    assert "Pages of class retrieval that were true: 1 of 1 ruled." in capsys.readouterr().out


def test_who_takes_it_may_say_at_once_what_the_page_was(opened, capsys):
    taken = answer(capsys, "incident", "ack", opened, "--ruling", "false_page", "--note", "a test index")
    assert (taken["state"], taken["ruling"], taken["note"]) == ("acknowledged", "false_page", "a test index")
    assert answer(capsys, "incident", "list")["precision"] == {"retrieval": {"true": 0, "ruled": 1}}
    assert main(["incident", "list"]) == 0
    assert "acknowledged, false page" in capsys.readouterr().out
    assert main(["incident", "ack", opened, "--ruling", "known_change"]) == 0
    told = capsys.readouterr().out
    assert "is acknowledged by ada as known change.\n" in told
    assert told.endswith("at the sidecar's next window, which closes it.\n")
    assert "invalid choice: 'maybe'" in refused(capsys, "incident", "ack", opened, "--ruling", "maybe")


def test_words_confirm_what_was_done(opened, capsys):
    assert main(["incident", "ack", opened]) == 0
    assert capsys.readouterr().out == f"{opened} (retrieval: documents_absent) is acknowledged by ada.\n"
    assert main(["incident", "resolve", opened, "--ruling", "known_change"]) == 0
    assert "is resolved by ada as known change.\nBaselines are learned anew" in capsys.readouterr().out


def test_a_wrong_id_ruling_or_state_is_one_line(opened, capsys):
    assert "there is no incident 'ffff'" in refused(capsys, "incident", "show", "ffff")
    assert "invalid choice: 'maybe'" in refused(capsys, "incident", "resolve", opened, "--ruling", "maybe")
    assert "required: --ruling" in refused(capsys, "incident", "resolve", opened)
    main(["incident", "resolve", opened, "--ruling", "true"])
    capsys.readouterr()
    assert "is resolved already" in refused(capsys, "incident", "ack", opened)


def test_silences_are_set_listed_and_ended(folder, capsys):
    made = answer(
        capsys, "incident", "silence", "--for", "2h", "--class", "retrieval", "--route", ROUTE, "--why", "reindexing"
    )
    assert (made["drift_class"], made["route"], made["who"]) == ("retrieval", ROUTE, "ada")
    assert made["until_ns"] - made["from_ns"] == 7200 * 10**9
    assert main(["incident", "silence"]) == 0
    assert "reindexing" in capsys.readouterr().out
    answer(capsys, "incident", "silence", "--end", str(made["number"]))
    assert answer(capsys, "incident", "silence") == []
    assert "no silence 1 is in force" in refused(capsys, "incident", "silence", "--end", "1")


def test_the_report_is_a_file_of_its_own(opened, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = answer(capsys, "incident", "report", opened)
    assert told == {"id": opened, "file": str(tmp_path / f"incident-{opened}.html")}
    assert "requests come without documents" in (tmp_path / f"incident-{opened}.html").read_text()
    assert "cannot write" in refused(capsys, "incident", "report", opened, "--out", "/nowhere/at/all.html")


def test_a_release_is_marked_before_the_sidecar_ever_ran(folder, capsys):
    made = answer(capsys, "deploy-event", "  7b   v2 ", "--revision", "4f1c", "--planned", "30m")
    assert (made["title"], made["revision"], made["who"], made["planned_seconds"]) == ("7b v2", "4f1c", "ada", 1800.0)
    book = Book(folder / "incidents.db")
    assert [(number, one.title) for number, one in book.calendar.deploys_after(0)] == [(1, "7b v2")]
    assert book.calendar.deploys_after(1) == []
    book.close()
    assert main(["deploy-event", "index 12", "--who", "bob", "--planned", "1h"]) == 0
    shown = capsys.readouterr().out
    assert "index 12, by bob" in shown
    assert "no page" in shown


def test_a_release_needs_a_title_and_a_duration_that_is_one(folder, capsys):
    assert "a title has 1 to 200 characters" in refused(capsys, "deploy-event", "  ")
    assert "give a duration up to a year" in refused(capsys, "deploy-event", "x", "--planned", "soon")
    assert "a maintenance window lasts 7 days at most" in refused(capsys, "deploy-event", "x", "--planned", "14d")
    assert main(["deploy-event", "x", "--planned", "7d"]) == 0


def test_a_terminal_obeys_no_name_that_came_from_a_client(folder, capsys):
    route = "hr\x1b]0;owned\x07\nhw-1  all is well"
    book = Book(folder / "incidents.db")
    id_ = book.open(event(signal("documents_absent", 0.0, 0.9, route=route)), verdict(), Exhibits()).incident.id
    book.close()
    assert main(["incident", "list"]) == 0
    shown = capsys.readouterr().out
    assert "hr?]0;owned??hw-1" in shown
    assert main(["incident", "ack", id_, "--who", "ada\x1b[2J"]) == 0
    shown += capsys.readouterr().out
    assert set("\x1b\x07").isdisjoint(shown)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2d", 172_800)])
def test_durations_are_read_with_their_unit(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1h", "1w", "h", "400d", "1.2.3m", "inf"])
def test_what_is_no_duration_is_refused(text, capsys, folder):
    assert "give a duration" in refused(capsys, "incident", "silence", f"--for={text}")


def test_commands_work_while_the_sidecar_has_the_file_open_and_it_sees_what_they_did(folder, opened, capsys):
    """Two processes on one file: the sidecar's book here, the command in a process of its own."""
    book = Book(folder / "incidents.db")
    seen = book.changes(0)[-1].number
    done = subprocess.run(
        [sys.executable, "-m", "headwatch.cli.main", "incident", "resolve", opened, "--ruling", "known_change", "--json"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout)["ruling"] == "known_change"
    assert [(line.what, line.who) for line in book.changes(seen)] == [("resolved", "ada")]
    assert book.open_incidents() == []
    book.close()
