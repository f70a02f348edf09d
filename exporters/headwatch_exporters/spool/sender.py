"""Takes records out of the spool and hands their batches to the store, one at a time, for as long as it takes.

The lanes have turns: what comes now waits for one record of the backlog at most, and the backlog gets at least every second
turn, and all that live leaves.  What fails for a reason that passes is sent again, all its batches under the same tokens, after
a pause: full jitter up to a bound that doubles from half a second to a minute, so that the sidecars of a fleet do not come back
at the same moment.  A batch that the store will never take is set aside, and the others of its delivery go on.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from headwatch.errors import BatchRefused, HeadwatchError, SpoolError, StoreError
from headwatch.health import SpoolHealth

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch_exporters.spool.lane import LaneName, Taken
    from headwatch_exporters.spool.record import Batch
    from headwatch_exporters.spool.spool import Spool

logger = logging.getLogger("headwatch.spool")

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
MAX_FAILURES = 16
"""A batch that failed so often, while the store took other deliveries in between, is set aside whatever the reason.

So no more than that many deliveries of the other lane lie between the first and the last attempt at one: far fewer than the
inserts of which the store knows the tokens.
"""
_LOOK_SECONDS = 5.0


class _Attempts:
    """What is known of a record that was tried."""

    def __init__(self, sent: int) -> None:
        self.refused: dict[str, str] = {}
        """Batches that are to be set aside: their token and the reason."""
        self._failures = 0
        self._sent = sent

    def hopeless(self, sent: int) -> bool:
        """Count a failure if others went through since the last one, *sent* by now; return whether it was one too many."""
        self._failures += sent > self._sent
        self._sent = sent
        if self._failures < MAX_FAILURES:
            return False
        self._failures = 0  # the next batch of it stands for itself
        return True


class Sender:
    """The thread that empties a spool."""

    def __init__(
        self,
        spool: Spool,
        insert: Callable[[Batch], None],
        *,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
        longest_pause_seconds: float = LONGEST_PAUSE_SECONDS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """*insert* hands one batch to the store and raises :class:`StoreError` where it did not take it."""
        self._spool = spool
        self._insert = insert
        self._first_pause_seconds = first_pause_seconds
        self._longest_pause_seconds = longest_pause_seconds
        self._jitter = jitter
        self._stopping = threading.Event()
        self._deadline = 0.0
        self._failures = 0
        """In a row."""
        self._errors = 0
        self._attempts: dict[int, _Attempts] = {}
        """By record: those that were tried, one of each lane at most."""
        self._last_error = ""
        self._sent = (0, 0, 0)
        self._duration_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="headwatch-spool", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Send what waits for at most *seconds*, and return whether the thread has ended; what is left stays in the spool."""
        self._deadline = time.monotonic() + seconds
        self._stopping.set()
        self._spool.changed.set()
        self._thread.join(seconds + 1.0)
        return not self._thread.is_alive()

    def health(self, spool_error: str = "") -> SpoolHealth:
        """Return where the spool and the sending stand; *spool_error* is why the last record could not be spooled."""
        losses = self._spool.losses
        records, batches, rows = self._sent
        return SpoolHealth(
            up=not (spool_error or self._last_error),
            last_error=spool_error or self._last_error,
            disk_bytes=self._spool.disk_bytes,
            max_bytes=self._spool.max_bytes,
            records=self._spool.waiting,
            oldest_ns=self._spool.oldest_ns,
            sent_records=records,
            sent_batches=batches,
            sent_rows=rows,
            send_errors=self._errors,
            errors=dict(losses.errors),
            dropped_batches=dict(losses.batches),
            dropped_rows=dict(losses.rows),
            aside_batches=self._spool.aside.batches,
            last_duration_seconds=self._duration_seconds,
        )

    def _run(self) -> None:
        turn: LaneName = "live"
        while not self._stopping.is_set() or (time.monotonic() < self._deadline and self._spool.waiting and not self._failures):
            try:
                turn = self._send_one(turn)
            except Exception as error:  # noqa: BLE001 - whatever it was, what waits must not wait for a restart
                turn = "live" if turn == "backlog" else "backlog"
                self._failed(error)

    def _send_one(self, turn: LaneName) -> LaneName:
        """Send a record of the lane *turn*, else one of the other; wait where there is none.  Return whose turn is next."""
        other: LaneName = "backlog" if turn == "live" else "live"
        self._spool.changed.clear()
        with self._spool.exclusive:
            taken = self._spool.take(turn)
            if taken is None:
                turn, other = other, turn
                taken = self._spool.take(turn)
            if taken is not None:
                self._send(taken)
        if taken is None:
            self._spool.changed.wait(_LOOK_SECONDS)
        return other

    def _send(self, taken: Taken) -> None:
        """Hand over all batches of *taken*.

        Raises:
            StoreError: The store does not take one of them, for a reason that passes.
            SpoolError: The disk does not take what is to be set aside, or the mark that the record is done.
        """
        started = time.monotonic()
        attempt = self._attempts.setdefault(taken.frame.number, _Attempts(self._sent[0]))
        for batch in taken.record.batches:
            if batch.token in attempt.refused:
                continue
            try:
                self._insert(batch)
            except BatchRefused as error:
                attempt.refused[batch.token] = str(error)
            except StoreError as error:
                if not attempt.hopeless(self._sent[0]):
                    raise
                attempt.refused[batch.token] = f"failed {MAX_FAILURES} times while others were taken: {error}"
        refused = [batch for batch in taken.record.batches if batch.token in attempt.refused]
        for batch in refused:
            reason = attempt.refused[batch.token]
            logger.error("a batch of %d rows of %s is set aside: %s", batch.rows, batch.table, reason)
            self._spool.set_aside(batch, reason, taken.record.time_ns)
        self._spool.done(taken)
        del self._attempts[taken.frame.number]
        self._duration_seconds = time.monotonic() - started
        records, batches, rows = self._sent
        sent = [batch.rows for batch in taken.record.batches if batch.token not in attempt.refused]
        self._sent = (records + 1, batches + len(sent), rows + sum(sent))
        if self._last_error:
            logger.warning("the store is back; %d deliveries wait", self._spool.waiting)
        self._failures, self._last_error = 0, ""

    def _failed(self, error: Exception) -> None:
        """Count, say it once, and pause."""
        self._errors += 1
        if not isinstance(error, SpoolError):  # which is counted where it was met
            self._spool.losses.errors[error.reason if isinstance(error, StoreError) else "unexpected"] += 1
        if not self._last_error:
            logger.error("the store does not take what the spool holds, which waits: %s", error,
                         exc_info=None if isinstance(error, HeadwatchError) else error)
        self._last_error = str(error) or type(error).__name__
        self._spool.fall_behind()
        bound = min(self._longest_pause_seconds, self._first_pause_seconds * 2.0 ** min(self._failures, 32))
        self._failures += 1
        self._stopping.wait(bound * self._jitter())
