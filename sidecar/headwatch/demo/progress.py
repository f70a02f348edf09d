"""What a user sees while the demo runs: one bar for each stage, on stderr."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.progress import Task, TaskID

_BAR_WIDTH = 36
_NEVER_FULL = 0.97


class Stages:
    """The bars of one run.  Where the console is no terminal, each stage is one line as it begins and one as it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(TextColumn("{task.description:<28}"), _Bar(), _Count(), TimeElapsedColumn(),
                              console=console, disable=not console.is_terminal)  # fmt: skip

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bars while the block runs."""
        with self._bars:
            yield

    @contextmanager
    def counted(self, words: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar of *total* steps; the function handed over sets how many are done."""
        with self._stage(words, total, None) as bar:
            yield lambda done: self._bars.update(bar, completed=done)

    @contextmanager
    def timed(self, words: str, expected_seconds: float) -> Iterator[None]:
        """Show a bar for something that takes about so long.

        It moves with the clock and stops short of its end until the block ends, so that it never claims what is not done.
        """
        with self._stage(words, 1, expected_seconds):
            yield

    @contextmanager
    def _stage(self, words: str, total: int, expected_seconds: float | None) -> Iterator[TaskID]:
        bar = self._bars.add_task(words, total=total, expected_seconds=expected_seconds)
        if not self._console.is_terminal:
            self._console.print(f"{words} …")
        yield bar
        self._bars.update(bar, completed=total)
        self._bars.stop_task(bar)
        if not self._console.is_terminal:
            self._console.print(f"{words}: {self._bars.tasks[bar].finished_time or 0.0:.1f} s")


class _Bar(ProgressColumn):
    """A bar of steps done, or of the time that has passed of the time expected."""

    def render(self, task: Task) -> ProgressBar:
        expected = task.fields["expected_seconds"]
        if expected is None or task.finished:
            return ProgressBar(task.total, task.completed, _BAR_WIDTH)
        return ProgressBar(1.0, min((task.elapsed or 0.0) / expected, _NEVER_FULL), _BAR_WIDTH)


class _Count(ProgressColumn):
    """Steps done of all, for stages that are counted."""

    def render(self, task: Task) -> Text:
        if task.fields["expected_seconds"] is not None:
            return Text(" " * 7)
        return Text(f"{task.completed:3.0f}/{task.total:<3.0f}")
