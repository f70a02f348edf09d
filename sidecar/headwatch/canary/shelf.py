"""Where the fingerprint of a running sidecar lies: ``pinned.json`` in its folder, the ones before it beside it.

A fingerprint that is replaced keeps its file, named after the time it was pinned, so that a pin made in error can be taken back
by copying it; so many are kept.  The file is looked at before each run: `headwatch canary pin --stand-alone` may have
written it meanwhile.

After a change of the model that was accepted a new fingerprint is owed.  That is a file as well, which goes with the next pin:
a server that is still starting, or a restart of the sidecar, must not leave the old fingerprint in force.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headwatch.canary.fingerprint import load, save
from headwatch.errors import CanaryError

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch.canary.fingerprint import Fingerprint

KEPT = 10
_PINNED = "pinned.json"
_EARLIER = "fingerprint-"
_OWED = "pin-owed"


class Shelf:
    """The fingerprint in force: the one that is configured, or the one pinned in *folder*."""

    def __init__(self, folder: Path, configured: Path | None = None) -> None:
        self.folder = folder
        self.configured = configured
        self._read: tuple[tuple[int, int], Fingerprint] | None = None

    @property
    def path(self) -> Path:
        """Return the file of the fingerprint in force."""
        return self.configured or self.folder / _PINNED

    def current(self) -> Fingerprint | None:
        """Return the fingerprint in force; None where none is pinned yet.

        Raises:
            CanaryError: The file cannot be read, or is configured and not there.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError as error:
            if self.configured is not None:
                raise CanaryError("fingerprint", f"canary.fingerprint: there is no file {self.configured}") from error
            return None
        except OSError as error:
            raise CanaryError("fingerprint", f"cannot read fingerprint {self.path}: {error.strerror}") from error
        stamp = (found.st_mtime_ns, found.st_size)
        if self._read is None or self._read[0] != stamp:
            self._read = (stamp, load(self.path))
        return self._read[1]

    def pin(self, fingerprint: Fingerprint) -> Path:
        """Put *fingerprint* in force, keep the one before it, and return its file.

        Raises:
            CanaryError: It cannot be written, or another file is configured, which only its owner may change.
        """
        if self.configured is not None:
            raise CanaryError("fingerprint", f"runs are held against {self.configured} (canary.fingerprint), which a pin would "
                                             "not change: write a new one with `headwatch canary pin --out`")
        try:
            if self.path.exists():
                pinned = datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
                self.path.replace(self.folder / f"{_EARLIER}{pinned:%Y%m%dT%H%M%S.%f}.json")
            for old in sorted(self.folder.glob(f"{_EARLIER}*.json"))[:-KEPT]:
                old.unlink()
        except OSError as error:
            raise CanaryError("fingerprint", f"cannot keep the fingerprint before: {error.strerror}") from error
        save(fingerprint, self.path)
        try:
            (self.folder / _OWED).unlink(missing_ok=True)
        except OSError as error:
            raise CanaryError("fingerprint", f"cannot remove {self.folder / _OWED}: {error.strerror}") from error
        return self.path

    @property
    def owed(self) -> bool:
        """Return whether a fingerprint is to be pinned anew."""
        return self.configured is None and (self.folder / _OWED).exists()

    def owe(self) -> None:
        """Have a fingerprint owed until the next one is pinned.

        Raises:
            CanaryError: It cannot be written down, or another file is configured, which only its owner may change.
        """
        self.refuse_configured()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / _OWED).touch()
        except OSError as error:
            raise CanaryError("fingerprint", f"cannot write {self.folder / _OWED}: {error.strerror}") from error

    def refuse_configured(self) -> None:
        """Do nothing where a pin can be put in force.

        Raises:
            CanaryError: Another file is configured.
        """
        if self.configured is not None:
            raise CanaryError("invalid", f"runs are held against {self.configured} (canary.fingerprint): nothing to pin")
