"""What happens to ten times as many frames as ingest can take: memory, the account of what was left out, the way back.

The sidecar is the real one with its store, on one core; this process sends from another.  A frame for which the socket has no
room is dropped and counted here, as the plugin does it in the worker.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import zmq

from headwatch.bench.ingest.frames import templates
from headwatch.bench.memory import rss_mib
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.bench.ingest.frames import Shape, Template
    from headwatch.bench.sidecar import RunningSidecar

TIMES = 10.0
_QUEUED_FRAMES = 256
_LOOK_SECONDS = 0.25
_SETTLE_SECONDS = 60.0
_CALM_SHARE = 0.1
"""Of what one core takes, sent after the overload until thinning has ended."""


class Overload(msgspec.Struct, frozen=True):
    """What the overload showed.  All counts are of head summaries."""

    seconds: float
    offered: int
    offered_times: float
    """What was offered over what one core takes; below the aim where this process could not send faster."""
    aggregated: int
    thinned: int
    dropped: int
    """By the sender, whose socket was full."""
    rejected: int
    unaccounted: int
    """Offered less all of these."""
    most_thinning: int
    rss_mib_before: float
    rss_mib_most: float
    healthz_seconds_most: float
    recovery_seconds: float
    """From the end of the overload until every row is taken again; the load goes on at a tenth of what one core takes."""


class _Flow:
    """Sends frames at a rate, and counts."""

    def __init__(self, endpoint: str, made: list[Template], shape: Shape) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, _QUEUED_FRAMES)
        self._socket.connect(endpoint)
        self._made, self._shape = made, shape
        self.frames = 0
        self.dropped = 0

    def send(self, frames_per_second: float, seconds: float) -> float:
        """Offer so many frames for so long, and return how many a second were offered."""
        started, before = time.monotonic(), self.frames
        while (now := time.monotonic()) < started + seconds:
            due = int((now - started) * frames_per_second) - (self.frames - before)
            for _ in range(min(due, 64)):
                number = self.frames
                self.frames += 1
                if not self._socket.poll(0, zmq.POLLOUT):  # what would be dropped need not be made
                    self.dropped += 1
                    continue
                try:
                    self._socket.send(self._made[number % len(self._made)].at(number, time.time_ns()), zmq.NOBLOCK)
                except zmq.Again:
                    self.dropped += 1
            if due <= 0:
                time.sleep(0.001)
        return (self.frames - before) / (time.monotonic() - started)

    def close(self, *, hand_over: bool = True) -> None:
        """Close, and *hand over* what waits first."""
        self._socket.close(linger=int(_SETTLE_SECONDS * 1000) if hand_over else 0)
        self._context.term()


class _Watch:
    """Looks at the sidecar while it is under load."""

    def __init__(self, sidecar: RunningSidecar) -> None:
        self._sidecar = sidecar
        self._pid = sidecar.pid
        self._client = httpx.Client(trust_env=False, timeout=10.0)
        self.rss_mib = 0.0
        self.healthz_seconds = 0.0
        self.thinning = 1

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Look around all the while, beside whoever sends.

        Raises:
            CommandError: The sidecar did not answer.
        """
        ended = threading.Event()
        failed: list[httpx.HTTPError] = []

        def run() -> None:
            try:
                while not ended.wait(_LOOK_SECONDS):
                    self.look()
            except httpx.HTTPError as error:
                failed.append(error)

        thread = threading.Thread(target=run, name="bench-look")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        if failed:
            raise CommandError(f"the sidecar does not answer under load: {failed[0]}") from failed[0]

    def look(self) -> None:
        """Note memory and how long the sidecar takes to say that it lives."""
        self.rss_mib = max(self.rss_mib, rss_mib(self._pid))
        started = time.monotonic()
        self._client.get(f"{self._sidecar.url}/healthz").raise_for_status()
        self.healthz_seconds = max(self.healthz_seconds, time.monotonic() - started)
        self.thinning = max(self.thinning, int(self.status()["thinning"]))

    def status(self) -> dict[str, Any]:
        """Return what the sidecar says of itself."""
        return self._client.get(f"{self._sidecar.url}/api/v1/status").raise_for_status().json()  # type: ignore[no-any-return]

    def settled(self) -> dict[str, int]:
        """Return the counts of ingest once they stand still.

        Raises:
            CommandError: They do not.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        before: dict[str, int] = {}
        while time.monotonic() < deadline:
            counts: dict[str, int] = self.status()["ingest"]
            if counts == before:
                return counts
            before = counts
            time.sleep(1.0)
        raise CommandError("the sidecar still aggregates a minute after the last frame")


def measure(sidecar: RunningSidecar, shape: Shape, summaries_per_second: float, seconds: float) -> Overload:
    """Return what ten times *summaries_per_second* did to *sidecar*.

    Raises:
        CommandError: The sidecar does not answer, or does not come to rest.
    """
    flow = _Flow(sidecar.endpoint, templates(shape, 400), shape)
    watch = _Watch(sidecar)
    try:
        before = rss_mib(sidecar.pid)
        with watch.looking():
            rate = flow.send(TIMES * summaries_per_second / shape.summaries, seconds)
        most = watch.thinning
        ended = time.monotonic()
        while watch.status()["thinning"] > 1 and time.monotonic() < ended + _SETTLE_SECONDS:
            flow.send(_CALM_SHARE * summaries_per_second / shape.summaries, _LOOK_SECONDS)
        recovery = time.monotonic() - ended
        with contextlib.suppress(zmq.ZMQError):
            flow.close()
        counts = watch.settled()
        watch.look()
    except (httpx.HTTPError, OSError, CommandError) as error:
        flow.close(hand_over=False)
        raise CommandError(f"the sidecar does not answer under load: {error}") from error
    rejected = sum(count for name, count in counts.items() if name.startswith("rejected."))
    offered, dropped = flow.frames * shape.summaries, flow.dropped * shape.summaries
    aggregated, thinned = counts.get("head_summaries", 0), counts.get("thinned_head_summaries", 0)
    return Overload(
        seconds=seconds, offered=offered, offered_times=rate * shape.summaries / summaries_per_second,
        aggregated=aggregated, thinned=thinned, dropped=dropped, rejected=rejected * shape.summaries,
        unaccounted=offered - aggregated - thinned - dropped - rejected * shape.summaries,
        most_thinning=most, rss_mib_before=before, rss_mib_most=watch.rss_mib,
        healthz_seconds_most=watch.healthz_seconds, recovery_seconds=recovery,
    )  # fmt: skip
