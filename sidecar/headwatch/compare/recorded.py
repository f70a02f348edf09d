"""A side from a history: windows that follow each other become units.

A long history is not read whole: where it has more units than are wanted, runs of consecutive units are taken evenly from all
of it, so that a week costs as much as an hour and its days are all there.

Cost: decoding of the windows that are read, and the units (:mod:`headwatch.compare.gathering`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.compare.gathering import side_of
from headwatch.compare.ranges import Range
from headwatch.errors import CommandError
from headwatch.history.file import History
from headwatch.records import Selection

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch.compare.side import Side, Unit

RUN_UNITS = 8
"""Units that are taken together from a long history: enough to see how much one window says of the next."""
PROBES = 256
"""Windows that are looked at to find when a selection was served."""
_EVERYTHING, _ALL = Selection(), Range()


class Recorded:
    """The windows of a history file that lie whole in a range, and in them the strata that are meant."""

    def __init__(self, path: Path, part: Range = _ALL, selection: Selection = _EVERYTHING, name: str = "") -> None:
        self._path = path
        self._selection = selection
        self._name = name or str(path)
        with History.open_readonly(path) as history:
            numbers = _numbers(history, part)
            self._numbers = _served(history, numbers, selection) if selection.given() else numbers

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
        with History.open_readonly(self._path) as history:
            windows = (window for run in runs for number in self._numbers[run]
                       for window in history.read(number, number))  # fmt: skip
            return side_of(self._name, windows, [run.stop - run.start for run in runs], length, self._selection)


def chosen_runs(count: int, length: int, most: int) -> list[slice]:
    """Return which of *count* windows are read: all, or runs of consecutive units spread evenly."""
    if count <= length * most:
        return [slice(0, count)]
    size = length * min(RUN_UNITS, most)
    number = max(most // RUN_UNITS, 1)
    starts = np.linspace(0, count - size, number).astype(int)
    return [slice(int(start), int(start) + size) for start in starts]


def _served(history: History, numbers: list[int], selection: Selection) -> list[int]:
    """Return *numbers* from where *selection* was first served to where it last was, by evenly spread probes.

    A long history of many releases is so read where the one was that is asked for.  What was served for less than the step from
    one probe to the next may be missed, then nothing is left out.
    """
    step = max(len(numbers) // PROBES, 1)
    held = [
        place for place in range(0, len(numbers), step)
        if any(selection.takes(stratum) for window in history.read(numbers[place], numbers[place]) for stratum in window.strata)
    ]  # fmt: skip
    return numbers[max(held[0] - step + 1, 0) : held[-1] + step] if held else numbers


def _numbers(history: History, part: Range) -> list[int]:
    if part.timed:
        return history.within(*part.times)
    first, last = part.times
    return history.numbers(first, last)
