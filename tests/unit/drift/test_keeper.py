"""Baselines are versions, and a window's state is kept whole or not at all."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from headwatch.drift.keeper import LEARNED_KEPT, SCHEMA, Keeper
from headwatch.drift.kept import NONE, Changes, NewBaseline
from headwatch.errors import DriftStateError


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "state" / "drift.db"


@pytest.fixture
def keeper(path):
    keeper = Keeper(path)
    yield keeper
    keeper.close()


def new(origin: str = "learned", **more) -> NewBaseline:
    return NewBaseline(origin, 5, 1, 480, 470, {"heads:a": b"first a", "heads:b": b"first b"}, **more)


def changes(window: int, promotion: int = 1, version: int = 1, **more) -> Changes:
    states = more.pop("states", {"heads:a": b"evidence a", "heads:b": b"evidence b"})
    return Changes(window, promotion, version, {"since": 3}, states, **more)


def test_a_version_comes_back_with_everything_it_was_kept_with(keeper) -> None:
    version = keeper.add(new(note="after the upgrade", facts={"traffic": {"requests": 1.5}}))
    entry = keeper.baseline(version)
    assert (entry.origin, entry.created_ns, entry.first_window, entry.last_window, entry.windows) == ("learned", 5, 1, 480, 470)
    assert (entry.note, entry.facts, entry.in_force) == ("after the upgrade", {"traffic": {"requests": 1.5}}, False)
    assert keeper.parts(version) == {"heads:a": (0, b"first a"), "heads:b": (0, b"first b")}


def test_a_rollback_puts_in_force_what_was_before_and_can_go_further_back(keeper) -> None:
    versions = [keeper.add(new()) for _ in range(3)]
    assert keeper.in_force() == (0, NONE)
    for version in versions:
        keeper.promote(version, 9, "ann")
    assert keeper.in_force() == (3, versions[2])
    assert keeper.rollback() == versions[1]
    assert keeper.in_force() == (2, versions[1])
    assert keeper.rollback() == versions[0]
    with pytest.raises(DriftStateError, match="no other baseline"):
        keeper.rollback()
    keeper.promote(versions[2], 10, "ann")
    assert keeper.rollback() == versions[0]
    assert [entry.in_force for entry in keeper.baselines()] == [True, False, False]


def test_promoting_twice_is_undone_as_one(keeper) -> None:
    one, two = keeper.add(new()), keeper.add(new())
    for version in (one, two, two):
        keeper.promote(version, 9, "ann")
    assert keeper.rollback() == one


def test_a_window_is_saved_whole(keeper) -> None:
    keeper.promote(keeper.add(new()), 9, "ann")
    newcomers = {"signal:c": (1, b"newcomer c")}
    assert keeper.save(changes(600, suspect={598: "page", 599: "page"}, newcomers=newcomers)) == (1, 1)
    assert (keeper.window(), keeper.saved_for(), keeper.facts()) == (600, 1, {"since": 3})
    assert keeper.states() == {"heads:a": b"evidence a", "heads:b": b"evidence b"}
    assert keeper.suspects(599, 700) == {599: "page"}
    assert keeper.parts(1)["signal:c"] == (1, b"newcomer c")
    keeper.save(changes(601, states={"heads:b": b"later b"}))
    assert keeper.states() == {"heads:b": b"later b"}


def test_a_version_that_is_learned_comes_into_force_with_the_window_that_decided_it(keeper) -> None:
    assert keeper.save(changes(600, 0, NONE, states={}, baseline=new(), promote=True)) == (1, 1)
    assert keeper.in_force() == (1, 1)
    assert keeper.save(changes(601, baseline=new())) == (1, 1), "kept, and not put in force"
    assert len(keeper.baselines()) == 2
    assert keeper.save(changes(602, states={}, promote=True)) == (2, NONE), "a known change: none is in force"
    assert keeper.rollback() == 1


def test_suspicion_can_be_lifted(keeper) -> None:
    marks = {**dict.fromkeys(range(590, 600), "page"), 593: "telemetry", 594: "incident"}
    keeper.save(changes(600, 0, NONE, suspect=marks))
    keeper.pardon(592, 597)
    assert sorted(keeper.suspects(0, 600)) == [590, 591, 593, 598, 599], "a fault of telemetry remains one"


def test_old_learned_versions_make_room_and_what_a_person_kept_stays(keeper) -> None:
    pinned = keeper.add(new("pinned"))
    in_force = keeper.add(new())
    keeper.promote(in_force, 9, "ann")
    for _ in range(LEARNED_KEPT + 5):
        latest = keeper.add(new())
    kept = [entry.version for entry in keeper.baselines()]
    assert kept == [pinned, in_force, *range(latest - LEARNED_KEPT + 1, latest + 1)]
    with pytest.raises(DriftStateError, match="no baseline 3"):
        keeper.parts(3)


@pytest.mark.parametrize("call", [lambda keeper: keeper.promote(77, 0, ""), lambda keeper: keeper.parts(77)])
def test_a_version_that_is_not_there_is_named(keeper, call) -> None:
    with pytest.raises(DriftStateError, match="no baseline 77"):
        call(keeper)


def test_what_is_remembered_comes_back(keeper) -> None:
    assert keeper.recall("documents") is None
    for content in (b"one", b"two"):
        keeper.remember("documents", content)
    assert keeper.recall("documents") == b"two"


def test_a_file_of_a_newer_version_is_refused(path) -> None:
    Keeper(path).close()
    file = sqlite3.connect(path)
    file.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    file.close()
    with pytest.raises(DriftStateError, match="newer headwatch"):
        Keeper(path)


def test_a_file_that_is_something_else_is_refused(path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all, and long enough to look at" * 40)
    with pytest.raises(DriftStateError, match="cannot be opened as drift state"):
        Keeper(path)


def test_the_file_is_for_its_owner_alone(keeper, path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_kill_leaves_the_state_of_one_whole_window(path) -> None:
    """A process that saves window after window is killed; every part must then stand at the window that the clock shows."""
    first = Keeper(path)
    first.promote(first.add(new()), 9, "ann")
    first.close()
    script = textwrap.dedent(f"""
        from pathlib import Path
        from headwatch.drift.keeper import Keeper
        from headwatch.drift.kept import Changes
        keeper = Keeper(Path({str(path)!r}))
        window = keeper.window()
        while True:
            window += 1
            keeper.save(Changes(window, 1, 1, {{}}, {{name: b"%d " % window * 5000 for name in ("heads:a", "heads:b")}}))
            print(window, flush=True)
    """)
    reached = -1
    for kills in range(1, 4):
        writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(7 * kills):
            said = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        keeper = Keeper(path)
        window = keeper.window()
        assert window >= said > reached
        assert keeper.states() == dict.fromkeys(("heads:a", "heads:b"), b"%d " % window * 5000)
        keeper.close()
        reached = window
