"""Whether a sidecar runs on a configuration's files: a lock that goes with the process, whatever ends it.

Sidecars hold it together; a command that changes their files holds it alone.  It lies in the drift folder, which every
configuration has, with drift detection or the store or without, and belongs to whom the folder belongs to: a purge that root
runs before the first start must not keep the sidecar's user from it.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headwatch.errors import CommandError
from headwatch.places import drift_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwatch.config import Config

FILE_NAME = "sidecar.lock"


class Presence:
    """Says that a sidecar runs, until it is closed."""

    def __init__(self, config: Config) -> None:
        """Hold the lock with other sidecars.

        Raises:
            CommandError: A command is changing the files, or the lock is somebody else's.
            OSError: The folder cannot be used: nothing is kept there.  Or its file system knows no locks: no command that
                needs one will run.
        """
        try:
            self._held = _opened(config)
        except PermissionError as error:
            lock = drift_folder(config) / FILE_NAME
            if os.path.lexists(lock):  # files are kept in the folder, and a purge would not see that a sidecar runs
                raise CommandError(
                    f"cannot use {lock} of user {lock.lstat().st_uid}: give it to user {os.geteuid()}, or delete it"
                ) from error
            raise
        try:
            fcntl.flock(self._held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._held)
            if isinstance(error, BlockingIOError):
                raise CommandError(f"a purge is at work in {drift_folder(config)}; start once it has ended") from None
            raise

    def close(self) -> None:
        """Let go."""
        os.close(self._held)


@contextmanager
def alone(config: Config) -> Iterator[None]:
    """Keep sidecars away while the block lasts.

    Raises:
        CommandError: A sidecar runs, the folder cannot be used, or its file system knows no locks.
    """
    try:
        held = _opened(config)
    except OSError as error:
        raise CommandError(f"cannot use {drift_folder(config)}: {error.strerror} (drift.folder)") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        if isinstance(error, BlockingIOError):
            raise CommandError(f"{drift_folder(config)} is in use: stop the sidecar first") from None
        raise CommandError(
            f"cannot tell whether a sidecar runs in {drift_folder(config)}: {error.strerror} (drift.folder)"
        ) from error
    try:
        yield
    finally:
        os.close(held)


def _opened(config: Config) -> int:
    folder = drift_folder(config)
    _make(folder)
    lock, flags = folder / FILE_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        held = os.open(lock, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(lock, flags)
    try:
        if os.geteuid() == 0:
            owner = folder.stat()
            os.fchown(held, owner.st_uid, owner.st_gid)
    except OSError:
        os.close(held)
        raise
    return held


def _make(folder: Path) -> None:
    """Make *folder* and what is missing above it; what root makes belongs to whom the first folder that is there belongs to."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if missing and os.geteuid() == 0:
        owner = missing[-1].parent.stat()
        for one in missing:
            os.chown(one, owner.st_uid, owner.st_gid)
