"""The files of drift detection, as commands open them: whether the sidecar runs or not."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from headwatch.errors import CommandError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from headwatch.config import Config
    from headwatch.drift.keeper import Keeper
    from headwatch.history.file import History

NS = 1_000_000_000


@contextmanager
def open_keeper(config: Config, *, make: bool = False) -> Iterator[Keeper]:
    """Give the file of baselines; *make* one where there is none.

    Raises:
        CommandError: There is none, and none is to be made.
        DriftStateError: The file cannot be used.
    """
    from headwatch.drift.keeper import Keeper
    from headwatch.places import DRIFT_STATE, drift_folder

    path = drift_folder(config) / DRIFT_STATE
    if not make and not path.exists():
        raise CommandError(f"drift detection has kept nothing yet: there is no {path}")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    keeper = Keeper(path)
    try:
        yield keeper
    finally:
        keeper.close()


@contextmanager
def open_history(config: Config, path: Path | None = None) -> Iterator[History]:
    """Give the history at *path*, or the sidecar's own, for reading.

    Raises:
        CommandError: There is none.
        HistoryError: It cannot be read.
    """
    from headwatch.history.file import History
    from headwatch.places import HISTORY, drift_folder

    found = path or drift_folder(config) / HISTORY
    if not found.exists():
        raise CommandError(f"no window has been kept yet: there is no {found}")
    with History.open_readonly(found) as history:
        yield history


def add_range(action: argparse.ArgumentParser) -> None:
    """Declare the arguments that choose windows of a history."""
    action.add_argument("--history", type=Path, metavar="FILE", help="an exported history (default: the sidecar's own)")
    action.add_argument("--from", dest="first", metavar="WHEN", help="first window: its number, or a time as 2026-11-29T08:00")
    action.add_argument("--to", dest="last", metavar="WHEN", help="last window, likewise; a time: windows that began before it")
    action.add_argument("--last", dest="count", type=int, metavar="N", help="the last N windows (of those up to --to)")


def chosen(history: History, asked: argparse.Namespace) -> tuple[int, int]:
    """Return the numbers of the first and the last window that are *asked* for.

    Raises:
        CommandError: There is no such window, or a time cannot be read.
    """
    numbers = history.numbers()
    if asked.first is not None:
        numbers = [number for number in numbers if number >= _number(history, asked.first, "--from", start=True)]
    if asked.last is not None:
        numbers = [number for number in numbers if number <= _number(history, asked.last, "--to", start=False)]
    if asked.count is not None:
        if asked.count < 1:
            raise CommandError(f"--last {asked.count}: give a positive number of windows")
        numbers = numbers[-asked.count :]
    if not numbers:
        raise CommandError("there is no such window in the history; `headwatch drift status` says what it holds")
    return numbers[0], numbers[-1]


def _number(history: History, text: str, option: str, *, start: bool) -> int:
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"{option} {text}: give a window's number, or a time as 2026-11-29T08:00 (UTC)") from error
    time_ns = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * NS)
    found = history.between(time_ns, 2**63 - 1) if start else history.between(0, time_ns)
    if not found:
        raise CommandError(f"{option} {text}: the history has no window there")
    return found[0] if start else found[-1]


def window_seconds(config: Config) -> float:
    """Return the length of a window, or 0 where windows close by count and numbers tell no time of the day."""
    return 0.0 if config.window.requests else config.window.seconds


def moment(time_ns: int) -> str:
    """Return *time_ns* to be read, in UTC; empty for 0."""
    return datetime.fromtimestamp(time_ns / NS, UTC).strftime("%Y-%m-%d %H:%M") if time_ns else ""
