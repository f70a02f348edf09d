"""A clock that tests set, receivers without a thread, and controllers with a worker or two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwatch.capture.control import ControlReceiver
from headwatch.config import CaptureConfig, RouteConfig, WireConfig
from headwatch.control.controller import Controller
from headwatch.wire.control import ControlMessage, encode

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch.health import WorkerHealth

SECRET = b"a secret of thirty-two bytes ..."
CAPTURE = CaptureConfig(sample_rate=0.1, step_stride=8, routes={"support": RouteConfig(sample_rate=0.5)})


class Clock:
    """Monotonic seconds and the wall's nanoseconds, moved by hand and apart."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.wall_ns = 1_700_000_000_000_000_000

    def __call__(self) -> float:
        return self.seconds

    def ns(self) -> int:
        return self.wall_ns

    def forward(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall_ns += int(seconds * 1e9)


def receiver(clock: Clock, model: str = "model") -> ControlReceiver:
    return ControlReceiver(CAPTURE, WireConfig(), model, clock)


def message(epoch: int = 1000, sequence: int = 1, start_id: str = "life-one", **orders: Any) -> ControlMessage:
    return ControlMessage(epoch, start_id, sequence, 0, **orders)


def tell(receiver: ControlReceiver, said: ControlMessage, secret: bytes = SECRET) -> bool:
    """Return whether *receiver* used the message."""
    return receiver.accept(encode(said, secret), SECRET)


def controller(
    folder: Path, clock: Clock, workers: list[WorkerHealth] | None = None, secret: bytes = SECRET, endpoint: str = ""
) -> Controller:
    wire = WireConfig(control_endpoint=endpoint or f"ipc://{folder}/control")
    return Controller(wire, secret, folder / "control.json", lambda: workers or [], clock, clock.ns)
