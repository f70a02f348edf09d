"""A side from a history: ``PATH``, ``PATH@FROM..TO``; windows that follow each other become units.

A long history is not read whole: where it has more units than are wanted, runs of consecutive units are taken evenly from all
of it, so that a week costs as much as an hour and its days are all there.

Cost: decoding of the windows that are read, and the units (:mod:`headwatch.compare.gathering`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwatch.compare.gathering import side_of
from headwatch.errors import CommandError, ConfigError
from headwatch.history.file import History

if TYPE_CHECKING:
    from headwatch.compare.side import Side, Unit

RUN_UNITS = 8
"""Units that are taken together from a long history: enough to see how much one window says of the next."""
_NS = 1_000_000_000
_LAST_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Range:
    """A part of a history: window numbers, or times in nanoseconds; both ends are included, None is open."""

    path: Path
    first: int | None = None
    last: int | None = None
    timed: bool = False


def parse_range(text: str) -> Range:
    """Return what ``PATH``, ``PATH@FROM..TO`` or ``PATH@FROM..`` names; FROM and TO are window numbers or ISO times (UTC).

    Raises:
        ConfigError: It is none of these.
    """
    if Path(text).exists() or "@" not in text:
        return Range(Path(text))
    path, ends = _ends(text)
    if all(end.isdigit() or not end for end in ends):
        first, last = (int(end) if end else None for end in ends)
        timed = False
    else:
        first, last = (_time_ns(end, text) if end else None for end in ends)
        timed = True
    if first is not None and last is not None and first > last:
        raise ConfigError(f"{text!r}: the range ends before it begins")
    return Range(Path(path), first, last, timed)


def parse_times(text: str) -> tuple[str, int, int]:
    """Return what ``NAME``, ``NAME@FROM..TO`` or ``NAME@FROM..`` names: name, from and until (ns); times are ISO times (UTC).

    Raises:
        ConfigError: It is none of these.
    """
    if "@" not in text:
        return text, 0, _LAST_NS
    name, (start, end) = _ends(text)
    since, until = _time_ns(start, text) if start else 0, _time_ns(end, text) if end else _LAST_NS
    if since > until:
        raise ConfigError(f"{text!r}: the range ends before it begins")
    return name, since, until


def _ends(text: str) -> tuple[str, tuple[str, str]]:
    name, _, part = text.rpartition("@")
    ends = part.split("..")
    if len(ends) != 2 or not any(ends):  # noqa: PLR2004 - from and to
        raise ConfigError(f"{text!r}: a range is @FROM..TO, with window numbers or times; one end may be left out")
    return name, (ends[0], ends[1])


class Recorded:
    """The windows of a history file that lie in a range, of one model and revision where they are named."""

    def __init__(self, chosen: Range, model: str = "", revision: str = "", name: str = "") -> None:
        self._chosen = chosen
        self._model = model
        self._revision = revision
        self._name = name or str(chosen.path)
        with History.open_readonly(chosen.path) as history:
            self._numbers = _numbers(history, chosen)

    @property
    def name(self) -> str:
        """Return what the user called it."""
        return self._name

    @property
    def unit(self) -> Unit:
        """Return that it consists of windows."""
        return "windows"

    def size(self) -> int:
        """Return how many windows there are."""
        return len(self._numbers)

    def read(self, length: int, most: int) -> Side:
        """Return the side in at most *most* units of *length* windows.

        Raises:
            CommandError: It holds no windows, or those of several models or of different shapes.
            HistoryError: A window cannot be read.
        """
        if not self._numbers:
            raise CommandError(f"{self._name}: there are no windows in it")
        runs = chosen_runs(len(self._numbers), length, most)
        with History.open_readonly(self._chosen.path) as history:
            windows = (window for run in runs for number in self._numbers[run]
                       for window in history.read(number, number))  # fmt: skip
            return side_of(self._name, windows, [run.stop - run.start for run in runs], length, self._model, self._revision)


def chosen_runs(count: int, length: int, most: int) -> list[slice]:
    """Return which of *count* windows are read: all, or runs of consecutive units spread evenly."""
    if count <= length * most:
        return [slice(0, count)]
    size = length * min(RUN_UNITS, most)
    number = max(most // RUN_UNITS, 1)
    starts = np.linspace(0, count - size, number).astype(int)
    return [slice(int(start), int(start) + size) for start in starts]


def _numbers(history: History, chosen: Range) -> list[int]:
    given: dict[str, Any] = {}
    if chosen.timed:
        return history.between(chosen.first or 0, chosen.last if chosen.last is not None else _LAST_NS)
    if chosen.first is not None:
        given["first"] = chosen.first
    if chosen.last is not None:
        given["last"] = chosen.last
    return history.numbers(**given)


def _time_ns(text: str, given: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{given!r}: {text!r} is neither a window number nor a time such as 2026-11-29T14:00") from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * _NS)
