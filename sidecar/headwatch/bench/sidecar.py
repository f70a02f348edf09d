"""The real sidecar as a process beside a benchmark, as in production: it takes the frames, and its share of the cores.

Beside an engine its store is off, because how fast a disk is has no place in those figures; see ``docs/benchmarks.md``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headwatch.demo.processes import Server, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_SECONDS = 120.0
_CONFIGURATION = """
[wire]
endpoint = "{endpoint}"
control_endpoint = "tcp://127.0.0.1:{control}"

[http]
port = {port}

[store]
enabled = {store}
url = "chdb://{folder}/store"
"""


@dataclass(frozen=True, slots=True)
class RunningSidecar:
    """Where a running sidecar is reached."""

    endpoint: str
    """Of the wire."""
    url: str
    """Of its HTTP port."""
    server: Server

    @property
    def pid(self) -> int:
        """Return the id of its process, which is the one child of its guard."""
        guard = self.server.pid
        children = Path(f"/proc/{guard}/task/{guard}/children").read_text(encoding="ascii").split()
        return int(children[0])


@contextmanager
def running_sidecar(*, store: bool = False) -> Iterator[RunningSidecar]:
    """Start a sidecar, yield where it is reached, and end it; with *store* its embedded store is on.

    Raises:
        CommandError: It does not start.
    """
    wire, control, port = free_ports(3)
    endpoint, url = f"tcp://127.0.0.1:{wire}", f"http://127.0.0.1:{port}"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATCH_")}
    with tempfile.TemporaryDirectory(prefix="headwatch-bench-") as folder:
        configuration = Path(folder) / "headwatch.toml"
        text = _CONFIGURATION.format(endpoint=endpoint, control=control, port=port, store=str(store).lower(), folder=folder)
        configuration.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "headwatch.cli.main", "sidecar", "--config", str(configuration)]
        with Server("the sidecar", command, Path(folder) / "sidecar.log", environ) as server:
            server.wait_until_healthy(f"{url}/healthz", _START_SECONDS)
            yield RunningSidecar(endpoint, url, server)
