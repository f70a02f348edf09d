"""The receiving end of live control, in every worker and every front end: one thread, one reference that it replaces.

Nothing is asked of the engine's threads: they read :attr:`ControlReceiver.settings` and never wait.  A message is in force
as soon as this thread has checked it, well under a millisecond after it arrives.

Who hears nothing keeps what holds: the last message until a time limit in it passes, then the file's settings; the file's
from the start where no message ever comes.  Whatever is wrong with a message, it is counted and nothing changes.  A
receiver that has just started accepts the first message with the right signature, for it has nothing to compare it with;
from then on older ones are refused.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import zmq

from headwatch.capture.settings import Raised, limited, of_file, ordered
from headwatch.errors import ConfigError, WireError
from headwatch.secret_file import read_secret
from headwatch.wire import control

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.config import CaptureConfig, WireConfig
    from headwatch.wire.control import ControlMessage

logger = logging.getLogger("vllm.headwatch")
"""Below vLLM's own, which shows INFO: that something was switched from outside must stand in its log."""

_POLL_SECONDS = 1.0
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.05, 1.0
"""After a message that is refused the connection is dropped, with all that waits in it, and made anew after a pause that
doubles: whoever floods the endpoint costs the engine one signature a second, and leaves no backlog behind."""
_SOCKET_MESSAGES = 16
_HEARTBEAT_MILLISECONDS = 5_000


class ControlReceiver:
    """Hears the sidecar's orders.  :attr:`settings` may be read from any thread."""

    def __init__(
        self, capture: CaptureConfig, wire: WireConfig, model: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._capture = capture
        self._wire = wire
        self._model = model
        self._clock = clock
        self._file = of_file(capture)
        self._secret = b""
        self._last: ControlMessage | None = None
        self._expiry = (0, math.inf)
        """``since`` of the orders that have a time limit, and when it passes."""
        self._raises: dict[int, Raised] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headwatch-control", daemon=True)
        self.settings = self._file
        self.errors: Counter[str] = Counter()
        """Reasons why messages were refused, with how often."""

    def start(self) -> None:
        """Start the thread, unless the configuration names no secret: then live control is off."""
        if self._wire.control_secret_file:
            self._thread.start()

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """End the thread; what is in force stays."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def accept(self, payload: bytes, secret: bytes) -> bool:
        """Take one message; return whether it was used.  Never raises: what is wrong with it is counted."""
        try:
            message = control.decode(payload, secret)
            self._check_order(message)
        except WireError as error:
            self._refused(error)
            return False
        changed = self._last is None or message.epoch != self._last.epoch
        self._last = message
        self._limit(message)
        self._apply()
        if changed:
            logger.info("headwatch live control: epoch %d is in force: %s", message.epoch, _said(message))
        return True

    def expire(self) -> None:
        """Put back what has run out by now."""
        if self._clock() >= self.settings.deadline:
            self._apply()
            logger.info("headwatch live control: a time limit has passed, and what it held is put back")

    def _check_order(self, message: ControlMessage) -> None:
        last = self._last
        if last is None:
            return
        if message.epoch < last.epoch:
            raise WireError("stale", f"control message of epoch {message.epoch}, after epoch {last.epoch} was heard")
        if message.epoch == last.epoch and message.start_id != last.start_id:
            raise WireError("conflict", f"two sidecars use epoch {message.epoch}: {last.start_id} and {message.start_id}")
        if message.epoch == last.epoch and message.sequence <= last.sequence:
            raise WireError("replayed", f"control message {message.sequence} of epoch {message.epoch} came before")

    def _limit(self, message: ControlMessage) -> None:
        """Note when the limits of *message* pass.  One that is known already comes no later for being told again."""
        now = self._clock()
        expiry = math.inf if message.expires_seconds is None else now + message.expires_seconds
        since, known = self._expiry
        self._expiry = (message.since, min(expiry, known) if message.since == since else expiry)
        raises = {}
        for item in message.raises:
            before = self._raises.get(item.number)
            deadline = min(now + item.seconds, before.deadline if before else math.inf)
            raises[item.number] = Raised(item.target, item.to, deadline)
        self._raises = raises

    def _apply(self) -> None:
        """Replace the settings by what is ordered and has not run out."""
        message, now = self._last, self._clock()
        if message is None:
            return
        raises = tuple(
            item for item in self._raises.values()
            if now < item.deadline and (item.target.model is None or not self._model or item.target.model == self._model)
        )  # fmt: skip
        expiry = self._expiry[1]
        if now < expiry:
            self.settings = ordered(self._capture, message, raises, expiry)
        else:  # the message is still in force: it said that this is how its orders end
            self.settings = limited(replace(self._file, epoch=message.epoch), raises, math.inf)

    def _refused(self, error: WireError) -> None:
        reason = f"control_{error.reason}"
        self.errors[reason] += 1
        if self.errors[reason] == 1:
            logger.warning("headwatch live control: message refused (%s): %s; more are only counted", error.reason, error)

    def _run(self) -> None:
        try:
            secret = read_secret("wire.control_secret_file", self._wire.control_secret_file)
            pause = _FIRST_PAUSE_SECONDS
            with zmq.Context() as context:
                while not self._stop.wait(pause):
                    with context.socket(zmq.SUB) as socket:
                        heard = self._listen(socket, secret)
                    pause = _FIRST_PAUSE_SECONDS if heard else min(2 * pause, _LAST_PAUSE_SECONDS)
        except ConfigError as error:
            self.errors["control_secret"] += 1
            logger.error("headwatch live control is off: %s", error)  # noqa: TRY400 - one line, no traceback
        except Exception as error:  # this thread lives inside vLLM: it ends, and says why
            self.errors["control_stopped"] += 1
            self.settings = self._file
            logger.exception("headwatch live control stopped; the file's settings hold: %s", type(error).__name__)

    def _listen(self, socket: zmq.Socket[bytes], secret: bytes) -> bool:
        """Hear messages until one is refused or the thread is to end; return whether any was used."""
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, _SOCKET_MESSAGES)
        socket.setsockopt(zmq.MAXMSGSIZE, control.MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1_000)
        socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MILLISECONDS)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(self._wire.control_endpoint)
        used = False
        while not self._stop.is_set():
            wait = min(_POLL_SECONDS, max(0.0, self.settings.deadline - self._clock()))
            if socket.poll(math.ceil(wait * 1000)):
                if not self.accept(socket.recv(), secret):
                    break
                used = True
            self.expire()
        return used


def _said(message: ControlMessage) -> str:
    """Return in a few words what *message* orders."""
    if not message.enabled:
        return "off"
    everything = msgspec.to_builtins(message.everything)
    parts = [f"{name} {value}" for name, value in everything.items()]
    parts += [f"{len(items)} {noun}" for noun, items in (("routes", message.routes), ("raises", message.raises)) if items]
    return ", ".join(parts) or "the file's settings"
