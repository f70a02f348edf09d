"""The circuit breaker: capture switches itself off before it can hurt the engine, says so, and tries again later."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from headwatch.errors import HeadwatchError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("headwatch.capture")


class Breaker:
    """Counts errors by reason; opens after *limit* in a row; half-opens after *retry_seconds*."""

    def __init__(self, limit: int, retry_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._in_a_row = 0
        self._opened_at: float | None = None
        self.errors: Counter[str] = Counter()
        self.reason = ""

    @property
    def closed(self) -> bool:
        """Return whether capture may run now.

        It may again *retry_seconds* after the breaker opened (half open); the first step that fails then opens it anew, the
        first with rows that does not fail closes it.
        """
        return self._opened_at is None or self._half_open

    @property
    def up(self) -> bool:
        """Return whether the breaker has not opened."""
        return self._opened_at is None

    @property
    def _half_open(self) -> bool:
        return self._opened_at is not None and self._clock() - self._opened_at >= self._retry_seconds

    def refused(self, error: HeadwatchError) -> None:
        """Count the refusal of one layer; the others go on, so it does not bring the breaker nearer to opening."""
        self.errors[error.reason] += 1
        if self.errors[error.reason] == 1:
            logger.warning("headwatch capture refuses a layer: %s: %s", error.reason, error)

    def failed(self, error: BaseException) -> None:
        """Count *error*; never raises."""
        reason = error.reason if isinstance(error, HeadwatchError) else type(error).__name__
        self.errors[reason] += 1
        self._in_a_row += 1
        if self.errors[reason] == 1:
            logger.warning("headwatch capture: %s: %s", reason, error, exc_info=not isinstance(error, HeadwatchError))
        if self._half_open:
            self._opened_at = self._clock()
        elif self._in_a_row >= self._limit and self._opened_at is None:
            self._opened_at = self._clock()
            self.reason = f"{self._in_a_row} errors in a row, the last: {reason}: {error}"
            logger.error("headwatch capture switched itself off: %s", self.reason)

    def succeeded(self) -> None:
        """Note a step without error: the breaker closes."""
        self._in_a_row = 0
        if self._opened_at is not None:
            logger.warning("headwatch capture is back")
            self._opened_at = None
            self.reason = ""
