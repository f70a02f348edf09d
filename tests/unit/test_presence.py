"""A sidecar is noticed whatever its configuration, from when the disk lets it say so until it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headwatch.config import Config, DriftConfig, HttpConfig, PrivacyConfig, StoreConfig, WireConfig
from headwatch.errors import CommandError
from headwatch.pipeline import Sidecar
from headwatch.presence import Presence, alone

if TYPE_CHECKING:
    from pathlib import Path


def config(folder: Path) -> Config:
    return Config(
        wire=WireConfig(
            endpoint=f"ipc://{folder}/frames", control_endpoint=f"ipc://{folder}/control",
            control_state_file=f"{folder}/control.json",
        ),
        http=HttpConfig(port=0), store=StoreConfig(enabled=False), drift=DriftConfig(enabled=False, folder=f"{folder}/drift"),
        privacy=PrivacyConfig(salts_file=f"{folder}/salts.json"),
    )  # fmt: skip


def test_sidecars_share_the_lock_and_a_command_has_it_alone(tmp_path: Path) -> None:
    one, other = Presence(config(tmp_path)), Presence(config(tmp_path))
    one.close()
    with pytest.raises(CommandError, match="stop the sidecar first"), alone(config(tmp_path)):
        pass
    other.close()
    with alone(config(tmp_path)), pytest.raises(CommandError, match="a purge is at work"):
        Presence(config(tmp_path))


def test_a_disk_that_lets_nobody_write_keeps_no_sidecar_from_starting(tmp_path: Path) -> None:
    (tmp_path / "drift").touch()
    sidecar = Sidecar(config(tmp_path))
    sidecar.start()
    try:
        with pytest.raises(CommandError, match=r"cannot use .*drift\.folder"), alone(config(tmp_path)):
            pass
        (tmp_path / "drift").unlink()
        sidecar.tick(everything=True)
        with pytest.raises(CommandError, match="stop the sidecar first"), alone(config(tmp_path)):
            pass
    finally:
        sidecar.stop()
    with alone(config(tmp_path)):
        pass
