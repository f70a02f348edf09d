"""Live control on the sidecar's side: takes changes, keeps them, publishes them, says who follows.

A change is in force in this order: it is checked, written beside the state file, audited, put into the state file's place,
published.  So nothing is published that the next life of the sidecar would not know, and nothing happens that the audit
does not show.  The one exception is ``off``: it goes out even where the disk refuses both.

Epochs: the thousands count the starts of the sidecar, the rest the changes within one life.  So each life begins above
all that an earlier one can have published, also where its last changes could not be saved.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from headwatch.control.audit import AuditEntry, AuditLog
from headwatch.control.followers import followers
from headwatch.control.orders import Change, Orders, changed, difference, message_of, target_of, without
from headwatch.control.publisher import Publisher
from headwatch.control.state import Saved, StateFile
from headwatch.errors import CommandError, ControlError
from headwatch.wire import control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from headwatch.config import RouteConfig, WireConfig
    from headwatch.health import WorkerHealth
    from headwatch.records import Stratum

logger = logging.getLogger("headwatch.control")

_LIFE = 1000
_SIDECAR = "sidecar"
OFF_REASON = "live control is off: wire.control_secret_file names no secret (docs/control.md)"


class Controller:
    """The sidecar's live control.  Without a *secret* it is off: it shows that, and refuses changes.  Safe from threads."""

    def __init__(
        self,
        wire: WireConfig,
        secret: bytes,
        path: Path,
        workers: Callable[[], Iterable[WorkerHealth]],
        clock: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._wire = wire
        self._secret = secret
        self._workers = workers
        self._clock = clock
        self._clock_ns = clock_ns
        self._lock = threading.RLock()
        self._file = StateFile(path)
        self._audit = AuditLog(path.with_name(path.stem + ".audit.jsonl"))
        self._start_id = secrets.token_hex(8)
        self._sequence = 0
        saved = self._file.load()
        self._epoch = _next_life(saved.epoch)
        self._orders = saved.orders
        now = clock()
        self._deadlines = {number: now + left for number, left in saved.left_at(clock_ns()).items()}
        self._publisher = Publisher(wire.control_endpoint, self.message) if secret else None

    def start(self) -> None:
        """Publish, unless live control is off.

        Raises:
            CommandError: The endpoint is in use, or the state cannot be kept.
        """
        if self._publisher is None:
            logger.info("%s", OFF_REASON)
            if self._orders != Orders():
                logger.warning("%s holds orders, which nobody hears", self._file.path)
            return
        try:
            self._save(self._orders, self._epoch)
            self._file.commit()
        except OSError as error:
            raise CommandError(f"live control cannot keep its state in {self._file.path}: {error.strerror} "
                               "(wire.control_state_file)") from error
        self._publisher.start()
        logger.info("live control: %s, epoch %d", self._wire.control_endpoint, self._epoch)

    def stop(self) -> None:
        """End the publishing thread; what is in force stays with the workers."""
        if self._publisher is not None:
            self._publisher.stop()

    def show(self) -> dict[str, Any]:
        """Return what is ordered, until when, and which workers follow."""
        with self._lock:
            self._expire()
            orders = self._orders
            left = {number: round(seconds, 3) for number, seconds in self._left(self._deadlines).items()}
            workers = followers(self._workers(), self._epoch if self._publisher is not None else -1)
            return {
                "live": self._publisher is not None,
                "reason": "" if self._publisher is not None else OFF_REASON,
                "epoch": self._epoch,
                "start_id": self._start_id,
                "enabled": orders.enabled,
                "everything": orders.everything,
                "routes": orders.routes,
                "seconds_left": left.get(orders.since),
                "raises": [
                    {**msgspec.to_builtins(item), "seconds_left": left.get(item.number)} for item in orders.raises
                ],
                "workers": workers,
                "acknowledged": sum(worker["acknowledged"] for worker in workers),
                "of": len(workers),
            }

    def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the last *limit* changes, newest first."""
        return [msgspec.to_builtins(entry) for entry in self._audit.latest(limit)]

    def change(self, body: bytes, peer: str) -> dict[str, Any]:
        """Make the change in *body*, the JSON that came from *peer*; return what :meth:`show` does.

        Raises:
            ControlError: ``off``, ``invalid``, or ``unrecorded``.
        """
        try:
            change = msgspec.json.decode(body, type=Change)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise ControlError("invalid", f"this is no change: {error}") from error
        self.make(change, f"{change.who} ({peer})" if change.who else peer)
        return self.show()

    def raise_stratum(self, stratum: Stratum, to: RouteConfig, seconds: float, who: str, why: str = "") -> int:
        """Raise what is sampled of *stratum* for *seconds*; return the number by which it can be ended before.

        Raises:
            ControlError: As :meth:`change`.
        """
        return self.make(Change("raise", to=to, target=target_of(stratum), seconds=seconds, why=why), who)

    def end_raise(self, number: int, who: str, why: str = "") -> None:
        """End the raise *number* now.

        Raises:
            ControlError: As :meth:`change`; ``invalid`` also where it has ended already.
        """
        self.make(Change("end", number=number, why=why), who)

    def make(self, change: Change, who: str) -> int:
        """Make *change* on behalf of *who*; return its epoch.

        Raises:
            ControlError: As :meth:`change`.
        """
        if self._publisher is None:
            raise ControlError("off", OFF_REASON)
        with self._lock:
            self._expire()
            orders = changed(self._orders, change, self._epoch + 1, who)
            size = len(self._encoded(orders))
            if size > control.MAX_MESSAGE_BYTES:
                raise ControlError("invalid", f"the orders would take {size} bytes, more than {control.MAX_MESSAGE_BYTES}")
            try:
                self._commit(orders, change.action, who, change.why)
            except OSError as error:
                if change.action != "off":
                    raise ControlError("unrecorded", "the change cannot be kept and audited, so it is not made: "
                                                     f"{error.filename or self._file.path}: {error.strerror}") from error
                logger.error("switched off, but that cannot be kept and audited: %s", error)  # noqa: TRY400
                self._take(orders)
            epoch = self._epoch
        self._publisher.wake()
        return epoch

    def heard(self, workers: Iterable[WorkerHealth]) -> None:
        """Begin a new life above what *workers* report: they have heard epochs that the state file knows nothing of."""
        highest = max((worker.status.control_epoch for worker in workers), default=0)
        if self._publisher is None or not self._epoch < highest < control.MAX_EPOCH // 2:
            return
        with self._lock:
            logger.warning("a worker has heard epoch %d, later than our %d: was %s lost?  Its orders are sent anew", highest,
                           self._epoch, self._file.path)
            self._epoch = _next_life(highest)
            with contextlib.suppress(OSError):  # where it cannot be kept, the next life hears of it in the same way
                self._save(self._orders, self._epoch)
                self._file.commit()
        self._publisher.wake()

    def message(self) -> tuple[bytes, float]:
        """Return the message to publish now, and in how many seconds a time limit will change it."""
        with self._lock:
            self._expire()
            self._sequence += 1
            payload = self._encoded(self._orders)
            until = min(self._left(self._deadlines).values(), default=math.inf)
        return payload, until

    def _encoded(self, orders: Orders) -> bytes:
        left = self._left(self._limits(orders))
        message = message_of(orders, left, (self._epoch, self._start_id, self._sequence, self._clock_ns()))
        return control.encode(message, self._secret)

    def _expire(self) -> None:
        passed = {number for number, seconds in self._left(self._deadlines).items() if not seconds}
        if not passed or self._publisher is None:
            return
        orders = without(self._orders, passed)
        try:
            self._commit(orders, "expired", _SIDECAR, "a time limit passed")
        except OSError as error:
            logger.error("a time limit passed, but that cannot be kept and audited: %s", error)  # noqa: TRY400
            self._take(orders)

    def _commit(self, orders: Orders, action: str, who: str, why: str) -> None:
        old, new = difference(self._orders, orders)
        epoch = self._epoch + 1
        self._save(orders, epoch)
        time_text = datetime.fromtimestamp(self._clock_ns() / 1e9, UTC).isoformat(timespec="milliseconds")
        self._audit.append(AuditEntry(time_text, who, action, epoch, why, old, new))
        self._file.commit()
        self._take(orders)

    def _take(self, orders: Orders) -> None:
        self._deadlines = self._limits(orders)
        self._orders = orders
        self._epoch += 1
        self._sequence = 0

    def _limits(self, orders: Orders) -> dict[int, float]:
        now = self._clock()
        return {number: self._deadlines.get(number, now + seconds) for number, seconds in orders.limits.items()}

    def _left(self, deadlines: dict[int, float]) -> dict[int, float]:
        now = self._clock()
        return {number: max(0.0, deadline - now) for number, deadline in deadlines.items()}

    def _save(self, orders: Orders, epoch: int) -> None:
        self._file.write(Saved(epoch, orders, self._left(self._limits(orders)), self._clock_ns()))


def _next_life(epoch: int) -> int:
    return (epoch // _LIFE + 1) * _LIFE
