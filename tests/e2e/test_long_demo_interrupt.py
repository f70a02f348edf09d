"""Ctrl-C at any moment of the demo leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.model, pytest.mark.long]


def with_marker(marker: str) -> list[int]:
    """Return the processes whose environment carries *marker*."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if marker.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("moment", [0.3, 2.0, 6.0, 15.0, 35.0, 60.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_no_process_outlives_the_demo(tmp_path: Path, moment: float, number: signal.Signals) -> None:
    marker = f"DEMO_MARKER={time.monotonic_ns()}"
    name, _, value = marker.partition("=")
    demo = subprocess.Popen(
        [sys.executable, "-m", "headwatch.cli.main", "demo", "--exit", "--dir", str(tmp_path / "demo")],
        env={**os.environ, name: value}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    time.sleep(moment)
    assert demo.poll() is None
    os.kill(demo.pid, number)
    demo.wait(60)
    deadline = time.monotonic() + 40
    while with_marker(marker):
        assert time.monotonic() < deadline, f"processes are left: {with_marker(marker)}"
        time.sleep(0.2)
