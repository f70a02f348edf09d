"""A sidecar is noticed whatever its configuration, from when the disk lets it say so until it ends."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from headwatch.config import Config, DriftConfig, HttpConfig, PrivacyConfig, StoreConfig, WireConfig
from headwatch.errors import CommandError
from headwatch.pipeline import Sidecar
from headwatch.presence import Presence, alone

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


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


@contextmanager
def another_user() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def theirs() -> Iterator[Path]:
    """Return a folder of another user's, whom the folders above let through."""
    with TemporaryDirectory(prefix="headwatch-") as folder:
        os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)


@as_root
@pytest.mark.parametrize("folder", ["there", "missing"])
def test_a_purge_by_root_before_the_first_start_sees_the_sidecar_that_starts_later(theirs: Path, folder: str) -> None:
    if folder == "there":
        (theirs / "drift").mkdir(0o700)
        os.chown(theirs / "drift", NOBODY, NOBODY)
    with alone(config(theirs)):
        pass
    with another_user():
        sidecar = Presence(config(theirs))
    with pytest.raises(CommandError, match="stop the sidecar first"), alone(config(theirs)):
        pass
    sidecar.close()


@as_root
def test_a_lock_of_somebody_elses_is_one_clear_line_at_the_start_and_a_reason_later(theirs: Path) -> None:
    with another_user():
        (theirs / "drift").touch()  # nothing can be kept
        sidecar = Sidecar(config(theirs))
    (theirs / "drift").unlink()
    (theirs / "drift").mkdir()
    os.chown(theirs / "drift", NOBODY, NOBODY)
    lock = theirs / "drift" / "sidecar.lock"
    lock.touch(0o600)
    try:
        with another_user():
            with pytest.raises(CommandError, match=rf"{lock} of user 0: give it to user {NOBODY}"):
                Presence(config(theirs))
            sidecar.tick(everything=True)
        assert [reason for reason in sidecar.readiness() if str(lock) in reason]
        os.chown(lock, NOBODY, NOBODY)
        with another_user():
            sidecar.tick(everything=True)
        assert not [reason for reason in sidecar.readiness() if str(lock) in reason]
    finally:
        sidecar.start()
        sidecar.stop()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_costs_no_descriptor_and_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(OSError, match=os.strerror(number)):
            Presence(config(tmp_path))
        with pytest.raises(CommandError, match=rf"{os.strerror(number)} \(drift\.folder\)"), alone(config(tmp_path)):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before
