"""A relay between worker and sidecar that can lose frames or set the worker's clock: what networks and hosts do, on purpose.

It takes the sidecar's place on the wire (PULL) and passes frames on (PUSH), whole and in order.  While nothing is wrong it
changes no byte.  Frames lost are drawn from a seeded generator.
"""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np
import zmq

from headwatch.bench.triage.tape import Tape
from headwatch.model import SummaryBatch
from headwatch.wire import codec

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch.bench.triage.scenarios import Wire

LOST_SHARE = 0.3
"""Of summary frames, while the wire is lossy; status frames pass."""
SKEW_NS = 300 * 1_000_000_000
_POLL_MILLISECONDS = 100
_HIGH_WATER_FRAMES = 4096


class Relay:
    """Listens where the worker sends and passes on to the sidecar.  A context manager; runs on a thread of its own."""

    def __init__(self, listen: str, forward: str, seed: int = 0, tape: Path | None = None) -> None:
        """Prepare; what is passed on is kept in the file *tape* as well, where one is named."""
        self._listen, self._forward, self._tape = listen, forward, tape
        self._random = np.random.default_rng(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="triage-relay", daemon=True)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.mode: Wire = "clean"
        """Set from any thread; holds from the next frame on."""
        self.lost = 0
        """Frames lost so far."""

    def altered(self, payload: bytes) -> bytes | None:
        """Return what *payload* becomes on its way; None where it is lost."""
        if self.mode == "clean":
            return payload
        frame = codec.decode(payload)
        if self.mode == "skewed":
            return codec.encode(msgspec.structs.replace(frame, time_ns=frame.time_ns + SKEW_NS))
        if isinstance(frame, SummaryBatch) and self._random.random() < LOST_SHARE:
            self.lost += 1
            return None
        return payload

    def _run(self) -> None:
        source, target = self._context.socket(zmq.PULL), self._context.socket(zmq.PUSH)
        for socket in (source, target):
            socket.setsockopt(zmq.LINGER, 0)
        source.setsockopt(zmq.RCVHWM, _HIGH_WATER_FRAMES)
        target.setsockopt(zmq.SNDHWM, _HIGH_WATER_FRAMES)
        source.bind(self._listen)
        target.connect(self._forward)
        with Tape(self._tape) if self._tape is not None else nullcontext() as tape:
            while not self._stop.is_set():
                if source.poll(_POLL_MILLISECONDS):
                    passed = self.altered(source.recv())
                    if passed is not None:
                        target.send(passed)
                        if tape is not None:
                            tape.keep(time.time_ns(), passed)
        source.close()
        target.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._context.term()
