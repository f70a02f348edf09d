"""Which of the canary runs in a recording the sidecar would have sent.

A page waits for a canary that is ordered for it, and such a run takes seconds where a window takes a minute.  A recording has
windows of a few seconds and cannot be asked for anything, so canaries run in nearly every window of it, and the judge passes on
what would have been there: one run in :data:`EVERY` windows, as with windows of a minute and the default of five minutes, and
the next one after the watch has asked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwatch.observed import ObservedWindow

EVERY = 5
"""Windows between two runs that are sent by themselves."""


class Canaries:
    """Passes on the runs that are due or were asked for."""

    def __init__(self, every: int = EVERY, since: int = 0) -> None:
        """*since*: windows that have passed since the last run."""
        self._every, self._since = every, since
        self._asked = False

    def ask(self) -> bool:
        """Have the next run passed on; return that there will be one."""
        self._asked = True
        return True

    def passed(self, window: ObservedWindow) -> ObservedWindow:
        """Return *window* with its runs where one is due, without them where none is."""
        self._since += 1
        if not window.canaries:
            return window
        if not self._asked and self._since < self._every:
            return replace(window, canaries=())
        self._since, self._asked = 0, False
        return window
