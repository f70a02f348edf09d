"""The lock on a spool's folder: it goes with the process, whatever ends it."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def lock(folder: Path) -> int:
    """Return the open file that holds *folder* for this process; closing it lets go.

    Raises:
        BlockingIOError: Another process has the folder.
        OSError: The disk does not let us.
    """
    held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise
    return held
