"""The mark on an embedded store that a restore is being written into: nobody opens it, so a reader sees all or nothing.

It lies in the store's folder and is taken away last.  A lock on it says whether the restore is still at work; it goes with the
process, whatever ends that.  A restore that finds the mark of one that was killed empties the folder and begins anew: the mark
is made only where there were no rows.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from typing import TYPE_CHECKING, Self

from headwatch.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

MARK = "headwatch-restoring"


def require_whole(path: Path) -> None:
    """See that no restore into the store at *path* is under way or was cut short.

    Raises:
        StoreError: One is or was.
    """
    if (path / MARK).exists():
        raise StoreError(f"the store {path} is not whole: a restore into it is at work or was cut short; `headwatch store "
                         "restore FOLDER` begins it anew")


class Restoring:
    """A restore into the store at *path*; what happens in it counts once :meth:`done` was called."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = -1

    def __enter__(self) -> Self:
        """Take away what a restore that was killed left behind.

        Raises:
            StoreError: Another restore is at work, or the folder cannot be emptied.
        """
        if (self._path / MARK).exists():
            self._mark()
            try:
                for left in self._path.iterdir():
                    if left.name == MARK:
                        continue
                    if left.is_dir() and not left.is_symlink():
                        shutil.rmtree(left)
                    else:
                        left.unlink()
            except OSError as error:
                raise StoreError(f"{self._path}: cannot take away what a restore left there: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._held >= 0:
            os.close(self._held)

    def begin(self) -> None:
        """Have nobody else open the store from now on.

        Raises:
            StoreError: The mark cannot be made.
        """
        if self._held < 0:
            self._mark()

    def done(self) -> None:
        """Let everybody open the store, which is whole and on disk."""
        os.sync()
        (self._path / MARK).unlink()

    def _mark(self) -> None:
        held = -1
        try:
            held = os.open(self._path / MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fsync(held)
        except OSError as error:
            if held >= 0:
                os.close(held)
            what = "another restore into it is at work" if isinstance(error, BlockingIOError) else error.strerror
            raise StoreError(f"cannot restore into {self._path}: {what}") from error
        self._held = held
