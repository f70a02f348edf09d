"""The real sidecar beside the engine, as in production: it takes the frames, and its share of the cores, during the run.

Only its store is off, because how fast a disk is has no place in these figures; see ``docs/benchmarks.md``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headwatch.demo.processes import Server, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_SECONDS = 120.0
_CONFIGURATION = """
[wire]
endpoint = "{endpoint}"

[http]
port = {port}

[store]
enabled = false
"""


@contextmanager
def running_sidecar() -> Iterator[str]:
    """Start a sidecar, yield the endpoint that it listens on for frames, and end it.

    Raises:
        CommandError: It does not start.
    """
    wire, port = free_ports(2)
    endpoint = f"tcp://127.0.0.1:{wire}"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATCH_")}
    with tempfile.TemporaryDirectory(prefix="headwatch-bench-") as folder:
        configuration = Path(folder) / "headwatch.toml"
        configuration.write_text(_CONFIGURATION.format(endpoint=endpoint, port=port), encoding="utf-8")
        command = [sys.executable, "-m", "headwatch.cli.main", "sidecar", "--config", str(configuration)]
        with Server("the sidecar", command, Path(folder) / "sidecar.log", environ) as sidecar:
            sidecar.wait_until_healthy(f"http://127.0.0.1:{port}/healthz", _START_SECONDS)
            yield endpoint
