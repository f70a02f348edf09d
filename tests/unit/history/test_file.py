"""The history keeps each window once, makes room, and travels as a file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from headwatch.errors import HistoryError
from headwatch.history.codec import encode
from headwatch.history.file import SCHEMA, History

from .windows import MINUTE, full_window, same


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "state" / "history.db"


def filled(path: Path, numbers=range(10), **more) -> History:
    history = History(path, **more)
    for number in numbers:
        history.append(full_window(number))
    return history


def test_windows_come_back_in_order_whatever_the_order_in_which_they_came(path) -> None:
    with filled(path, (12, 3, 7)) as history:
        assert [window.number for window in history.read()] == [3, 7, 12]
        assert [window.number for window in history.read(4, 12)] == [7, 12]
        assert history.span() == (3, 12)
        assert history.times() == (3 * MINUTE, 13 * MINUTE)
        assert history.between(3 * MINUTE, 12 * MINUTE) == [3, 7]
        assert same(next(history.read(7, 7)), full_window(7))


def test_a_number_that_is_kept_stays_as_it_is(path) -> None:
    with filled(path) as history:
        assert not history.append(replace(full_window(3), traffic={"requests": 99.0}))
        assert same(next(history.read(3, 3)), full_window(3))


def test_an_empty_history_has_no_span(path) -> None:
    with History(path) as history:
        assert history.span() is None
        assert list(history.read()) == []


def test_the_oldest_windows_make_room_and_what_is_kept_stays_below_the_limit(path) -> None:
    size = len(encode(full_window(1)))
    with filled(path, range(200), max_bytes=40 * size) as history:
        numbers = history.numbers()
        assert numbers == list(range(numbers[0], 200))
        assert 35 <= len(numbers) <= 40
    with History(path, max_bytes=20 * size) as history:  # a smaller limit holds from the next window on
        history.append(full_window(200))
        assert 15 <= len(history.numbers()) <= 20


def test_an_export_is_a_history_with_a_word_about_its_origin(path, tmp_path) -> None:
    target = tmp_path / "recording.history"
    with filled(path) as history:
        assert history.export(target, {"seed": 4, "models": ["a", "b"]}, first=2, last=5) == 4
    with History.open_readonly(target) as recording:
        assert recording.meta() == {"seed": 4, "models": ["a", "b"]}
        assert [window.number for window in recording.read()] == [2, 3, 4, 5]
        assert all(same(window, full_window(window.number)) for window in recording.read())
    assert sorted(item.name for item in tmp_path.iterdir() if item.is_file()) == ["recording.history"]


def test_a_reader_sees_what_a_writer_that_goes_on_has_kept(path) -> None:
    with filled(path) as history, History.open_readonly(path) as reader:
        assert reader.span() == (0, 9)
        history.append(full_window(10))
        assert reader.span() == (0, 10)
        with pytest.raises(sqlite3.OperationalError):
            reader.append(full_window(11))


def test_a_reader_makes_no_file(path) -> None:
    with pytest.raises(HistoryError, match="no history at"):
        History.open_readonly(path)
    assert not path.exists()


def test_a_file_of_a_newer_version_is_refused(path) -> None:
    filled(path).close()
    file = sqlite3.connect(path)
    file.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    file.close()
    for opened in (History, History.open_readonly):
        with pytest.raises(HistoryError, match="newer headwatch"):
            opened(path)


def test_a_file_that_is_something_else_is_refused(path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all, and long enough to look at" * 40)
    with pytest.raises(HistoryError, match="cannot be opened as history"):
        History(path)
    path.unlink()
    file = sqlite3.connect(path)
    file.execute("CREATE TABLE window (number)")
    file.commit()
    file.close()
    with pytest.raises(HistoryError, match="no history of headwatch"):
        History.open_readonly(path)


def test_an_export_that_cannot_be_written_says_so(path, tmp_path) -> None:
    with filled(path) as history, pytest.raises(HistoryError, match="cannot be"):
        history.export(tmp_path / "nowhere" / "recording.history")


def test_the_file_is_for_its_owner_alone(path) -> None:
    filled(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_kill_loses_no_window_that_was_kept(path) -> None:
    History(path).close()
    script = textwrap.dedent(f"""
        from headwatch.history.file import History
        from headwatch.observed import ObservedWindow
        history = History({str(path)!r})
        number = -1 if history.span() is None else history.span()[1]
        while True:
            number += 1
            history.append(ObservedWindow(number, number, number + 1, traffic={{"requests": float(number)}}))
            print(number, flush=True)
    """)
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(20):
            said = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        with History.open_readonly(path) as history:
            numbers = history.numbers()
            assert numbers == list(range(len(numbers)))
            assert numbers[-1] >= said
            assert all(window.traffic == {"requests": float(window.number)} for window in history.read())


def test_windows_that_are_too_old_go(path) -> None:
    day = 24 * 60
    with filled(path, (0, 1, 2, day, day + 1, day + 2, day + 3), max_days=1) as history:
        assert history.numbers() == [2, *range(day, day + 4)], "the first two ended more than a day before the last but one"
        assert history._bytes == sum(len(encode(full_window(number))) for number in history.numbers())


def shifted(number: int, days: int):
    window = full_window(number)
    ahead = days * 86_400 * 10**9
    return replace(window, start_ns=window.start_ns + ahead, end_ns=window.end_ns + ahead)


def test_a_window_with_a_wrong_clock_costs_no_history(path) -> None:
    with filled(path, range(100)) as history:
        history.append(shifted(100, 401))
        history.append(full_window(101))
        assert history.numbers() == list(range(102))


def test_a_clock_that_is_wrong_for_long_is_bounded_by_the_time_now(path) -> None:
    with filled(path, range(100), now=lambda: 200 * MINUTE) as history:
        for number in range(100, 110):
            history.append(shifted(number, 401))
        assert history.numbers() == list(range(110))


def test_an_own_clock_that_is_wrong_costs_few_windows_each_time_and_age_goes_on_after_it(path) -> None:
    with filled(path, range(100), max_days=1) as history:
        for number in (100, 101):
            history.append(shifted(number, 401))
        assert history.numbers() == list(range(60, 102)), "an hour's windows with the second one"
        for number in (3000, 3001, 3002):
            history.append(full_window(number))
        assert history.numbers() == [100, 101, 3000, 3001, 3002]
        for number in (5000, 5001, 5002):
            history.append(full_window(number))
        assert history.numbers() == [5000, 5001, 5002], "those of the wrong clock with those that came after them"
        assert history._bytes == sum(len(encode(full_window(number))) for number in history.numbers())
