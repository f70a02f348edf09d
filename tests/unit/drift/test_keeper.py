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

from headwatch.drift.keeper import SCHEMA, Keeper
from headwatch.errors import DriftStateError


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "state" / "drift.sqlite"


def filled(path: Path) -> Keeper:
    keeper = Keeper(path)
    for stratum in ("a", "b"):
        keeper.promote(keeper.add_baseline(stratum, "learned", 5, (1, 480), b"first " + stratum.encode()))
    return keeper


def test_a_version_is_never_overwritten_and_a_rollback_is_a_promotion(path) -> None:
    keeper = filled(path)
    newer = keeper.add_baseline("a", "pinned", 9, (500, 980), b"second a", "after the upgrade")
    assert keeper.in_force() == {"a": (1, 0), "b": (2, 1)}
    keeper.promote(newer)
    assert keeper.in_force()["a"] == (3, 0)
    keeper.promote(1)
    assert keeper.in_force()["a"] == (1, 0)
    assert [keeper.arrays_of(entry.version) for entry in keeper.baselines("a")] == [b"first a", b"second a"]
    assert [(entry.version, entry.in_force, entry.note) for entry in keeper.baselines("a")] == [
        (1, True, ""), (3, False, "after the upgrade"),
    ]  # fmt: skip


def test_a_promotion_forgets_what_was_gathered_against_the_other_baseline(path) -> None:
    keeper = filled(path)
    keeper.save(600, {"a": (1, b"evidence a"), "b": (2, b"evidence b")})
    keeper.promote(keeper.add_baseline("a", "learned", 9, (500, 980), b"second a"))
    assert keeper.states() == {"b": (2, b"evidence b")}
    assert keeper.window() == 600


@pytest.mark.parametrize("call", [lambda keeper: keeper.promote(77), lambda keeper: keeper.arrays_of(77)])
def test_a_version_that_is_not_there_is_named(path, call) -> None:
    with pytest.raises(DriftStateError, match="no baseline 77"):
        call(filled(path))


def test_a_file_of_a_newer_version_is_refused(path) -> None:
    filled(path).close()
    with sqlite3.connect(path) as file:
        file.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    file.close()
    with pytest.raises(DriftStateError, match="newer headwatch"):
        Keeper(path)


def test_a_file_that_is_something_else_is_refused(path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all, and long enough to look at" * 40)
    with pytest.raises(DriftStateError, match="cannot be opened as drift state"):
        Keeper(path)


def test_the_file_is_for_its_owner_alone(path) -> None:
    filled(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_kill_leaves_the_state_of_one_whole_window(path) -> None:
    """A process that saves window after window is killed; every stratum must then stand at the window that the clock shows."""
    filled(path).close()
    script = textwrap.dedent(f"""
        from pathlib import Path
        from headwatch.drift.keeper import Keeper
        keeper = Keeper(Path({str(path)!r}))
        window = keeper.window()
        while True:
            window += 1
            keeper.save(window, {{name: (number, b"%d " % window * 5000) for name, number in (("a", 1), ("b", 2))}})
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
        assert keeper.states() == {"a": (1, b"%d " % window * 5000), "b": (2, b"%d " % window * 5000)}
        keeper.close()
        reached = window
