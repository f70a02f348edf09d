"""The thread that sends canaries at an interval and holds each run against the pinned fingerprint.

A failure (the server is away, rows did not arrive, the fingerprint cannot be read) is counted and shown, and is no drift.
Where no fingerprint is pinned, the first runs pin one, with a line in the log.  After a change that was accepted a new one is
pinned, however many runs fail and whatever is restarted in between; a person's order to pin is over with the first run of it
that fails, since a person is told.  In a dtype of 16 bits a run that departs is
repeated at once, and only two in a row count: what is rare in theory happens, and a page is not the place to find out.

Cost: one run's requests an interval; between runs the thread sleeps.  It holds no lock while it waits for the server.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from headwatch.addresses import mask_url
from headwatch.canary.client import CanaryClient
from headwatch.canary.companions import COMPANIONS
from headwatch.canary.compare import Comparison, compare
from headwatch.canary.counts import RunCounts
from headwatch.canary.fingerprint import EXACT_DTYPE
from headwatch.canary.pinning import MAX_RUNS, Pinning
from headwatch.canary.prompts import load_prompts
from headwatch.canary.send import send_all
from headwatch.canary.shelf import Shelf
from headwatch.canary.state import CanaryHealth, FingerprintFacts, RunnerState, facts_of
from headwatch.errors import CanaryError, HeadwatchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.canary.collector import Collector
    from headwatch.canary.fingerprint import Fingerprint
    from headwatch.canary.signature import Run
    from headwatch.config import CanaryConfig
    from headwatch.health import CanaryRuns

logger = logging.getLogger("headwatch.canary")

HASTY_SECONDS = 10.0
"""Longest pause between the first runs that pin, and while nothing answers at the server's address: it may be starting."""
_JOIN_SECONDS = 5.0


class CanaryRunner:
    """Runs canaries.  Every method may be called from any thread."""

    def __init__(
        self, config: CanaryConfig, collector: Collector, folder: Path, now_ns: Callable[[], int] = time.time_ns, *,
        on_result: Callable[[Comparison], None] = lambda _: None,
    ) -> None:
        """Prepare; fingerprints lie in *folder*.  *on_result* is handed every comparison, on the runner's thread.

        Raises:
            ConfigError: The endpoint, the key's file or the file of prompts cannot be used.
        """
        self._config = config
        self._collector = collector
        self._now_ns = now_ns
        self._on_result = on_result
        self._prompts = load_prompts(Path(config.prompts) if config.prompts else None)
        self._client = CanaryClient(config)
        self._shelf = Shelf(folder, Path(config.fingerprint) if config.fingerprint else None)
        self._thread = threading.Thread(target=self._loop, name="headwatch-canary", daemon=True)
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._ordered = 0
        self._done = 0
        self._pinned = 0
        self._compared = 0
        """Of the orders that are done, the last that a fingerprint was pinned for, and the last that ended in a comparison."""
        self._pinning: Pinning | None = None
        self._under_way: Pinning | None = None
        """What the present run is for: a run that fails says nothing of an order that came meanwhile."""
        self._latest: Comparison | None = None
        self._facts: FingerprintFacts | None = None
        self._counts = RunCounts(config.interval_seconds, now_ns())
        self._departures = 0
        self._last_ns = 0
        self._away = False
        self._error = ""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a prompt that is under way is not waited for longer than a few seconds."""
        with self._changed:
            self._stop.set()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)
        self._client.close()

    @property
    def latest(self) -> Comparison | None:
        """Return the last comparison; None before the first."""
        return self._latest

    def health(self) -> CanaryHealth:
        """Return where canaries stand."""
        with self._changed:
            latest, pinning, counts = self._latest, self._pinning, self._counts.now()
            return CanaryHealth(
                state=self._state(), endpoint=mask_url(self._config.endpoint), last_run_ns=self._last_ns,
                completed_ns=counts.completed_ns, runs=counts.runs, failures=counts.failures,
                departures=self._departures, error=self._error,
                gathered=0 if pinning is None else pinning.gathered, fingerprint=self._facts,
                deviation={item.prompt: item.deviation for item in latest.exhibits} if latest else {},
                threshold={item.prompt: item.threshold for item in latest.exhibits} if latest else {},
            )  # fmt: skip

    def counts(self) -> CanaryRuns:
        """Return how many runs were completed, how many were not and why, and when."""
        with self._changed:
            return self._counts.now()

    def _state(self) -> RunnerState:
        if self._error:
            return "failing"
        if self._pinning is not None:
            return "pinning"
        return "starting" if self._latest is None else "watching"

    def show(self) -> dict[str, Any]:
        """Return health, the last comparison, and how far orders are done, as plain values."""
        health = self.health()
        with self._changed:
            shown = {
                "health": health, "latest": self._latest, "ordered": self._ordered, "done": self._done,
                "compared": self._compared, "pinned": self._pinned,
            }  # fmt: skip
        plain: dict[str, Any] = msgspec.to_builtins(shown)
        return plain

    def fingerprint(self) -> bytes:
        """Return the fingerprint in force, as its file holds it.

        Raises:
            CanaryError: None is pinned yet, or it cannot be read.
        """
        found = self._shelf.current()
        if found is None:
            raise CanaryError("none", "no fingerprint is pinned yet")
        return msgspec.json.encode(found)

    def order_run(self) -> dict[str, Any]:
        """Have a run sent now; return what :meth:`show` does."""
        with self._changed:
            self._ordered += 1
            self._changed.notify_all()
        return self.show()

    def order_pin(self, runs: int | None, note: str) -> dict[str, Any]:
        """Have a fingerprint pinned anew from *runs* runs, None for as many as it needs; return what :meth:`show` does.

        Raises:
            CanaryError: The number is out of range, or the fingerprint is one of the configuration.
        """
        if runs is not None and not 1 <= runs <= MAX_RUNS:
            raise CanaryError("invalid", f"{runs} runs to pin: give 1 to {MAX_RUNS}")
        self._shelf.refuse_configured()
        with self._changed:
            self._ordered += 1
            self._pinning = Pinning(self._prompts, note, runs, urgent=True, order=self._ordered)
            self._changed.notify_all()
        return self.show()

    def owe_pin(self) -> None:
        """Have a fingerprint pinned anew as soon as that can be done, also after a restart: a change of the model was accepted.

        Raises:
            CanaryError: It cannot be written down, or the fingerprint is one of the configuration (``invalid``).
        """
        self._shelf.owe()
        with self._changed:
            self._ordered += 1
            self._changed.notify_all()

    def _loop(self) -> None:
        while True:
            with self._changed:
                if self._stop.is_set():
                    return
                order = self._ordered
            try:
                self._once(order)
            except HeadwatchError as error:
                self._failed(error)
                self._finish(order)
            except Exception:
                if self._stop.is_set():  # the connection was closed under a prompt that took too long
                    return
                logger.exception("a canary run failed; the next one goes on")
                self._failed(CanaryError("unexpected", "unexpected error; the log has the details"))
                self._finish(order)
            self._rest(order)

    def _rest(self, order: int) -> None:
        """Sleep until the next run is due or ordered."""
        with self._changed:
            seconds, pinning = self._config.interval_seconds, self._pinning
            if pinning is not None and pinning.urgent and not self._error:
                seconds = 0.0
            elif self._away or (pinning is not None and pinning.hasty and not self._error):
                seconds = min(seconds, HASTY_SECONDS)
            self._changed.wait_for(lambda: self._stop.is_set() or self._ordered > order, seconds)

    def _once(self, order: int) -> None:
        """Send one run, and pin it or compare it."""
        with self._changed:
            self._under_way = self._pinning
        fingerprint = self._shelf.current()
        with self._changed:
            self._facts = None if fingerprint is None else facts_of(fingerprint, self._shelf.path)
            if self._pinning is None and fingerprint is None:
                self._pinning = Pinning(self._prompts, "pinned by itself")
            elif self._pinning is None and self._shelf.owed:
                self._pinning = Pinning(self._prompts, "a change that was accepted", urgent=True)
            pinning = self._under_way = self._pinning
        if pinning is None and fingerprint is not None and fingerprint.prompt_digest != self._prompts.digest:
            raise CanaryError("prompts", f"{self._shelf.path} is of prompts {fingerprint.prompt_set}, not of those that are "
                                         f"sent ({self._prompts.version}): pin anew with `headwatch canary pin`")
        run = self._send(COMPANIONS if pinning is not None and pinning.in_company else 0)
        if pinning is not None:
            self._pin(pinning, run, order)
            return
        assert fingerprint is not None
        found = self._compare(fingerprint, run)
        if found.failed and (not found.exact or fingerprint.dtype != EXACT_DTYPE):
            again = self._compare(fingerprint, self._send(0))
            found = again if again.failed else msgspec.structs.replace(again, note="departed once and not when repeated")
        with self._changed:
            self._latest, self._error = found, "; ".join(f"{name}: {why}" for name, why in found.incomplete.items())
            self._departures += found.failed
            self._compared = order
        if found.failed:
            logger.warning("canary departs from its fingerprint: %s: %s", found.hint or "no pattern", found.note)
        self._on_result(found)
        self._finish(order)

    def _send(self, company: int) -> Run:
        run = send_all(
            self._client, self._collector, self._prompts, self._now_ns, company=company, stopped=self._stop.is_set
        )
        with self._changed:
            self._last_ns, self._away = run.time_ns, run.away
        return run

    def _compare(self, fingerprint: Fingerprint, run: Run) -> Comparison:
        found = compare(fingerprint, run)
        self._count(run)
        return found

    def _count(self, run: Run) -> None:
        with self._changed:
            if not self._stop.is_set():  # what was cut short failed for no reason
                self._counts.take(run)

    def _pin(self, pinning: Pinning, run: Run, order: int) -> None:
        fingerprint = pinning.add(run, self._now_ns())
        with self._changed:
            self._error = ""
        if fingerprint is None:
            self._count(run)
            return
        path = self._shelf.pin(fingerprint)
        self._count(run)
        how = "pinned" if pinning.urgent else "pinned by itself"
        noise = "exact" if fingerprint.noise is None else f"noise of {fingerprint.dtype} measured"
        logger.info("canary fingerprint %s from %d runs (%s): %s", how, fingerprint.runs, noise, path)
        with self._changed:
            if self._pinning is pinning:  # no other order has come meanwhile
                self._pinning = None
            self._pinned = max(self._pinned, pinning.order)
            self._facts = facts_of(fingerprint, path)
            self._latest = None
        self._finish(max(order, pinning.order))

    def _failed(self, error: HeadwatchError) -> None:
        with self._changed:
            fresh, self._error = str(error) != self._error, str(error)
            if not self._stop.is_set():
                self._counts.fail(error.reason)
            failed = self._under_way
            if failed is not None and failed.order:  # an order that failed is over: what was pinned before is in force
                self._done = max(self._done, failed.order)
                self._pinning = None if self._pinning is failed else self._pinning
        if fresh and not self._stop.is_set():
            logger.warning("canary run failed, which is no drift: %s", error)

    def _finish(self, order: int) -> None:
        with self._changed:
            self._done = max(self._done, order)
            self._changed.notify_all()
