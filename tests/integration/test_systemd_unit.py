"""The systemd unit: systemd itself reads it without a complaint, and it keeps the rights that it promises to give up."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "headwatch-sidecar.service"
COMMAND = "/opt/headwatch/bin/headwatch"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit, with the command where it is on this machine."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(COMMAND, str(Path(sys.executable).with_name("headwatch"))))
    return copy


@needs_systemd
def test_systemd_accepts_every_line(installed: Path):
    done = subprocess.run(["systemd-analyze", "verify", installed], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_the_exposure_that_systemd_computes_stays_low(installed: Path):
    """Of ten; a service without any restriction has 9.6.  Network access alone costs about one."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", installed],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-300:]


def test_it_starts_the_sidecar_and_does_not_restart_a_wrong_configuration():
    lines = UNIT.read_text().splitlines()
    assert f"ExecStart={COMMAND} sidecar" in lines
    assert "RestartPreventExitStatus=2" in lines
