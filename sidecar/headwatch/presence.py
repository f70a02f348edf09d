"""Whether a sidecar runs on a configuration's files: a lock that goes with the process, whatever ends it.

Sidecars hold it together; a command that changes their files holds it alone.  It lies in the drift folder, which every
configuration has, with drift detection or the store or without.
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

    from headwatch.config import Config

FILE_NAME = "sidecar.lock"


class Presence:
    """Says that a sidecar runs, until it is closed."""

    def __init__(self, config: Config) -> None:
        """Hold the lock with other sidecars.

        Raises:
            CommandError: A command is changing the files.
            OSError: The folder cannot be used: nothing is kept there.
        """
        self._held = _opened(config)
        try:
            fcntl.flock(self._held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._held)
            raise CommandError(f"a purge is at work in {drift_folder(config)}; start once it has ended") from None

    def close(self) -> None:
        """Let go."""
        os.close(self._held)


@contextmanager
def alone(config: Config) -> Iterator[None]:
    """Keep sidecars away while the block lasts.

    Raises:
        CommandError: A sidecar runs, or the folder cannot be used.
    """
    try:
        held = _opened(config)
    except OSError as error:
        raise CommandError(f"cannot use {drift_folder(config)}: {error.strerror} (drift.folder)") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise CommandError(f"{drift_folder(config)} is in use: stop the sidecar first") from None
    try:
        yield
    finally:
        os.close(held)


def _opened(config: Config) -> int:
    folder = drift_folder(config)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.open(folder / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
