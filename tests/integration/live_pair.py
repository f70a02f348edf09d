"""A sidecar and a worker in one process, with real sockets, HTTP and threads between them.

The worker is the product's own Capture on the engine double of the unit tests, stepping on a thread of its own as an
engine would.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import torch

from headwatch.capture.attach import create
from headwatch.config import CaptureConfig, Config, HttpConfig, StoreConfig, WireConfig
from headwatch.pipeline import Sidecar
from headwatch.secret_file import read_secret, write_secret

from ..programs import free_port
from ..unit.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwatch.capture.worker import Capture

STEP_SECONDS = 0.02
"""A decode step of a mid-sized model on a GPU; on a CPU it takes longer."""


def pair_config(folder: Path, *, secret: str = "secret", capture: CaptureConfig | None = None) -> Config:
    """Return the configuration that worker and sidecar share; secret and token are written where they are missing."""
    for name in ("secret", "token", secret):
        if not (folder / name).exists():
            write_secret(folder / name)
    return Config(
        capture=capture or CaptureConfig(step_stride=1, budget_share=1.0),
        wire=WireConfig(
            endpoint=f"ipc://{folder}/wire", control_endpoint=f"ipc://{folder}/control", status_seconds=0.1,
            control_secret_file=str(folder / secret), control_state_file=str(folder / "control.json"),
        ),
        http=HttpConfig(port=free_port(), token_file=str(folder / "token")),
        store=StoreConfig(enabled=False),
    )  # fmt: skip


@contextmanager
def sidecar(config: Config) -> Iterator[Sidecar]:
    """Run a sidecar, ticking as its main thread would, and stop it at the end."""
    made = Sidecar(config)
    made.start()
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(0.2):
            made.tick()

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield made
    finally:
        ended.set()
        thread.join()
        made.stop()


@dataclass
class Worker:
    """An engine that steps for ever, and what was in force in each step."""

    capture: Capture
    engine: Engine
    steps: list[tuple[float, int, bool]] = field(default_factory=list)
    """When each step began, the epoch in force and whether rows were planned."""
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Step: a prompt of 32 tokens, 7 generated ones, and again."""
        length = 32
        while not self.ended.wait(STEP_SECONDS):
            planned = self.capture.counters["rows_planned"]
            began = time.monotonic()
            new = length == 32
            self.capture.begin_step(self.engine.scheduled(new=new, rows=32 if new else 1, finished=("r-1",) if new else ()))
            self.engine.attend(length, 32 if new else 1)
            epoch = self.capture._settings.epoch
            self.capture.end_step()
            self.steps.append((began, epoch, self.capture.counters["rows_planned"] > planned))
            length = 32 if length == 39 else length + 1

    def steps_before(self, epoch: int, since: float) -> int:
        """Return how many steps that began after *since* ran before *epoch* was in force."""
        later = [(began, seen) for began, seen, _ in self.steps if began >= since]
        return sum(seen < epoch for _, seen in later)


@contextmanager
def worker(config: Config, instance: str = "engine-1") -> Iterator[Worker]:
    """Run a worker that steps until the block ends."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the double's tensors are tiny: more threads only wait for each other
    engine = Engine()
    own = msgspec.structs.replace(config, capture=msgspec.structs.replace(config.capture, instance=instance))
    capture = create(own, engine.worker)
    made = Worker(capture, engine)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.ended.set()
        thread.join()
        capture.control.stop()
        capture.sender.stop()
        torch.set_num_threads(threads)


BUSY_SECONDS = 60
"""For an answer of a sidecar that has to share two cores with an engine that polls on both."""


class Operator:
    """Asks and changes through the sidecar's HTTP API."""

    def __init__(self, config: Config) -> None:
        self._url = f"http://127.0.0.1:{config.http.port}/api/v1/control"
        self._token = read_secret("http.token_file", config.http.token_file).decode()

    def show(self) -> dict[str, Any]:
        return httpx.get(self._url, timeout=BUSY_SECONDS, trust_env=False).raise_for_status().json()  # type: ignore[no-any-return]

    def audit(self) -> list[dict[str, Any]]:
        return httpx.get(f"{self._url}/audit", timeout=BUSY_SECONDS, trust_env=False).raise_for_status().json()  # type: ignore[no-any-return]

    def change(self, action: str, **what: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}"}
        order = {"action": action, "who": "test", **what}
        answer = httpx.post(self._url, json=order, headers=headers, timeout=BUSY_SECONDS, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]
