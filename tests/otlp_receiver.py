"""rotel, a real OTLP receiver, which prints the data points that reach it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .peers import peer
from .programs import free_port, listens, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Receiver:
    """A running receiver."""

    grpc: str
    http: str
    log: Path

    def printed(self) -> str:
        """Return what it has printed so far."""
        return _COLOUR.sub("", self.log.read_text(errors="replace"))

    def wait_for(self, text: str) -> str:
        """Return what it has printed once *text* is in it."""
        wait_for(lambda: text in self.printed(), f"the receiver to print {text!r}", 15)
        return self.printed()


@contextmanager
def receiving(folder: Path) -> Iterator[Receiver]:
    """Run a receiver for gRPC and HTTP on free ports of loopback."""
    grpc, http = free_port(), free_port()
    log = folder / "rotel.log"
    command = [
        str(peer("rotel")), "start", "--exporter", "blackhole", "--pid-file", str(folder / "rotel.pid"),
        "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}",
        "--debug-log", "metrics", "--debug-log-verbosity", "detailed",
    ]  # fmt: skip
    with running(command, log, lambda: listens(grpc) and listens(http)):
        yield Receiver(f"http://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}/v1/metrics", log)
