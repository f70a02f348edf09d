"""What the sidecar does where detection cannot go on: it tells, and the rest goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from headwatch.config import CanaryConfig, Config, DriftConfig
from headwatch.drift.telemetry import START_NS
from headwatch.errors import CanaryError, DriftStateError, IncidentError
from headwatch.health import Health
from headwatch.incident.book import Book, Change
from headwatch.incident.calendar import Calendar
from headwatch.incident.ledger import FILE_NAME
from headwatch.watch.desk import FINGERPRINTS, Desk
from headwatch.watch.watch import Seen, Watch

from .. import incidents
from ..sidecars import health, reporting
from .scenes import CONFIG, SECOND, START, WINDOW_NS, window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _config(folder: Path) -> Config:
    drift = msgspec.structs.replace(CONFIG.drift, folder=str(folder))
    assert isinstance(drift, DriftConfig)
    config = msgspec.structs.replace(CONFIG, drift=drift)
    assert isinstance(config, Config)
    return config


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Return a desk whose observer hands over one window a delivery."""
    made = Desk(_config(tmp_path))
    made.start()
    numbers = iter(range(100))
    monkeypatch.setattr(made._observer, "release", lambda *_, **__: (window(next(numbers)),))
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DriftStateError("the disk is full"), "the disk is full"),
        (KeyError("lasting"), "unexpected KeyError; the log has the details"),
    ],
)
def test_a_window_that_cannot_be_judged_stops_nothing_and_is_judged_later(desk, monkeypatch, error, told):
    def broken(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Watch, "take", broken)
        desk.take((), (), health())
        assert desk.failure == told
        assert desk.status is None
    desk.take((), (), health())
    assert desk.failure == ""
    assert desk.status is not None


def test_a_watch_that_cannot_be_opened_again_is_tried_with_each_window_and_costs_nobody_else_anything(desk, monkeypatch):
    """The file of incidents is locked, say: what goes to exporters goes out, and what is open stays known."""
    opening = Desk._opened
    tries = []

    def refused(self: Desk) -> Watch:
        tries.append(1)
        if len(tries) < 3:
            raise DriftStateError("drift.db: unable to open database file")
        return opening(self)

    def broken(*_: object) -> None:
        raise DriftStateError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Watch, "take", broken)
        desk.take((), (), health())
    monkeypatch.setattr(Desk, "_opened", refused)
    for told in ("unable to open", "unable to open", ""):
        desk.book.calendar.add_deploy(f"release {len(tries)}")
        desk.take((), (), health())
        assert [one.title for one in desk.news().deploys] == [f"release {len(tries) - 1}"]
        assert told in desk.failure
    assert (desk.failure, desk.status is not None, len(tries)) == ("", True, 3)


def test_a_pin_that_cannot_be_written_down_is_ordered_again_and_one_of_the_operators_own_file_is_not(tmp_path, caplog):
    """Else the old fingerprint would page for a change that was accepted: the window counts as judged once it is noted."""
    canary = CanaryConfig(endpoint="http://127.0.0.1:9")
    made = Desk(msgspec.structs.replace(_config(tmp_path), canary=canary))
    (tmp_path / FINGERPRINTS).write_text("in the way of the folder")
    with pytest.raises(CanaryError, match="pin-owed"):
        made._pin_canary()
    (tmp_path / FINGERPRINTS).unlink()
    made._pin_canary()
    assert (tmp_path / FINGERPRINTS / "pin-owed").exists()
    made.stop()
    canary = msgspec.structs.replace(canary, fingerprint=str(tmp_path / "ours.json"))
    made = Desk(msgspec.structs.replace(_config(tmp_path), canary=canary))
    made._pin_canary()
    assert "nothing to pin" in caplog.text
    made.stop()


def test_the_baseline_in_force_is_told_once_in_a_life(desk):
    """At first none is: detection says so too."""
    assert [one.version for one in desk.news().baselines] == [0]
    assert desk.news().baselines == ()
    assert desk.news().fingerprints == ()


def test_releases_that_cannot_be_read_now_are_told_of_later(desk, monkeypatch):
    def locked(*_: object) -> None:
        raise IncidentError("file", "database is locked")

    desk.book.calendar.add_deploy("release 7")
    with monkeypatch.context() as patched:
        patched.setattr(Calendar, "deploys_after", locked)
        desk.take((), (), health())
        assert desk.news().deploys == ()
        assert (desk.failure, desk.status is not None) == ("", True), "windows are judged all the same"
    desk.take((), (), health())
    assert [one.title for one in desk.news().deploys] == ["release 7"]


def test_a_release_that_was_marked_while_no_sidecar_ran_is_told_of_at_the_next_start(tmp_path):
    now_ns = window(0).start_ns
    book = Book(tmp_path / FILE_NAME, lambda: now_ns)
    for title, days in (("long ago", 31), ("yesterday", 1), ("just now", 0)):
        book.calendar.add_deploy(title, time_ns=now_ns - days * 24 * 60 * WINDOW_NS - SECOND)
    book.close()
    for _ in range(2):  # each start tells again: the store takes a release once
        made = Desk(_config(tmp_path), lambda: now_ns)
        assert [one.title for one in made.news().deploys] == ["yesterday", "just now"]
        assert made.news().deploys == ()
        made.stop()


def test_a_sidecar_that_starts_before_its_server_pages_nobody_and_misses_workers_that_it_knew(tmp_path):
    """Three lives: no worker is known yet; one is, and does not come back; and an incident says so already."""
    minute = iter(range(1000))

    def live(desk: Desk, minutes: int, *, serving: bool = False) -> list[tuple[str, str]]:
        for _ in range(minutes):
            now_ns = (START + next(minute)) * WINDOW_NS + 3 * SECOND
            workers = (reporting(received_ns=now_ns),) if serving else ()
            desk.take((), (), Health(time_ns=now_ns, workers=workers, ingest={}, exporters={}))
        return [(one.verdict.cause, one.state) for one in desk.book.list()]

    def started() -> Desk:
        made = Desk(_config(tmp_path), lambda: START * WINDOW_NS)
        made.start()
        return made

    grace = START_NS // WINDOW_NS
    first = started()
    assert live(first, 2 * grace) == []
    assert live(first, 5, serving=True) == []
    first.stop()
    second = started()
    assert live(second, grace) == [], "its model may still load"
    assert live(second, 4) == [("capture_down", "open")]
    second.stop()
    third = started()
    assert live(third, grace) == [("capture_down", "open")], "a start of the sidecar mends nothing"
    assert live(third, 8, serving=True) == [("capture_down", "resolved")]
    third.stop()


def test_the_log_says_what_a_client_named_without_what_a_terminal_obeys(desk, monkeypatch, caplog):
    told = incidents.incident(verdict=incidents.verdict(sentence="documents of route \x1b[2J\nERROR all is lost are not read"))
    seen = Seen(incidents.status(), None, (Change("opened", told),))
    caplog.set_level("INFO", "headwatch.watch")
    with monkeypatch.context() as patched:
        patched.setattr(Watch, "take", lambda *_: seen)
        desk.take((), (), health())
    (line,) = [record.getMessage() for record in caplog.records if "not read" in record.getMessage()]
    assert "?[2J?ERROR" in line
