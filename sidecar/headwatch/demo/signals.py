"""Ctrl-C and its kin: the first asks the demo to end, and nothing may cut short the ending."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):  # like KeyboardInterrupt: no handler for errors may swallow it
    """A signal asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise :class:`Interrupted` in the block at the first signal; further ones are ignored until the block is left."""

    def interrupt(number: int, _frame: object) -> None:
        for item in _SIGNALS:
            signal.signal(item, signal.SIG_IGN)
        raise Interrupted(number)

    kept = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
