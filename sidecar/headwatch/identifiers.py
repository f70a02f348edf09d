"""Identifiers of users, tenants and documents, hashed with a salt that changes.

A hash tells two identifiers apart and says nothing of who they are to whoever lacks the salt.  After a rotation the same
identifier has another hash, so nothing can be followed for longer than a salt is in use.  Old salts are kept until the last
row that was hashed with them has expired: so a purge by name still finds its rows, and afterwards nobody can, by any means.

A hashed identifier is ``h:<salt>:<hash>``: six hex digits that name the salt, 24 of blake2b (96 bits) keyed with it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import stat
import time
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

import msgspec

from headwatch.durable import replace_durably
from headwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from headwatch.model import Document, RequestContext

Identifier = Literal["user", "tenant", "document"]
TENANT_LABEL = "tenant"
"""The label of a document that names its tenant."""
_PREFIX = "h"
_DIGEST_BYTES = 12
_SECRET_BYTES = 32
_DAY_NS = 86_400 * 10**9
_RETRY_NS = 60 * 10**9
_MAX_FILE_BYTES = 1 << 20
_HASHED = re.compile(rf"{_PREFIX}:([0-9a-f]{{6}}):[0-9a-f]{{{2 * _DIGEST_BYTES}}}")

logger = logging.getLogger("headwatch.privacy")


class Salt(msgspec.Struct, frozen=True):
    """One salt and when it came into use."""

    name: str
    since_ns: int
    secret: str
    """Hex digits."""

    def hashed(self, kind: Identifier, value: str) -> str:
        """Return *value* as it is stored."""
        made = blake2b(
            value.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES, key=bytes.fromhex(self.secret),
            person=f"hw-{kind}".encode(),
        )  # fmt: skip
        return f"{_PREFIX}:{self.name}:{made.hexdigest()}"

    def __repr__(self) -> str:
        """Return everything but the secret."""
        return f"Salt(name={self.name!r}, since_ns={self.since_ns})"


def salt_of(identifier: str) -> str | None:
    """Return the name of the salt with which *identifier* was hashed; None where it was not."""
    hashed = _HASHED.fullmatch(identifier)
    return hashed[1] if hashed is not None else None


class Keyring:
    """The salts of one sidecar, oldest first, in a file that is its owner's alone.  Not safe from threads."""

    def __init__(self, path: Path, rotate_days: int, keep_days: int, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Read the salts in *path*; a salt is in use for *rotate_days*, and kept for *keep_days* after that.

        Raises:
            ConfigError: The file cannot be read or written, is no keyring, or others may use it.
        """
        self._path = path
        self._rotate_ns, self._keep_ns = rotate_days * _DAY_NS, keep_days * _DAY_NS
        self._clock_ns = clock_ns
        self._salts = _read(path)
        self._due_ns = self._salts[-1].since_ns + self._rotate_ns if self._salts else 0

    def hashed(self, kind: Identifier, value: str) -> str:
        """Return *value* under the salt in use; an empty one stays empty.

        Raises:
            ConfigError: There is no salt yet, and none can be kept.
        """
        return self.current().hashed(kind, value) if value else ""

    def stored(self, kind: Identifier, value: str) -> list[str]:
        """Return every form in which *value* may be stored: as it is, and under each salt that is kept."""
        return [value, *(salt.hashed(kind, value) for salt in self._salts)]

    def current(self) -> Salt:
        """Return the salt in use, a new one where it is time.

        Nothing is hashed with a salt that a purge would lack: while a new one cannot be kept, the old one stays in use.

        Raises:
            ConfigError: There is no salt yet, and none can be kept.
        """
        now = self._clock_ns()
        if now >= self._due_ns:
            try:
                self._rotate(now)
            except ConfigError as error:
                if not self._salts:
                    raise
                logger.warning("the old salt stays in use: %s", error)
                self._due_ns = now + _RETRY_NS
        return self._salts[-1]

    def _rotate(self, now_ns: int) -> None:
        """Take a new salt into use, or the one that another sidecar with the same file took in the meantime."""
        with _locked(self._path):
            self._salts = _read(self._path)
            if not self._salts or now_ns - self._salts[-1].since_ns >= self._rotate_ns:
                self._add(now_ns)
        self._due_ns = self._salts[-1].since_ns + self._rotate_ns

    def _add(self, now_ns: int) -> None:
        fresh = Salt(secrets.token_hex(3), now_ns, secrets.token_hex(_SECRET_BYTES))
        ended = [following.since_ns for following in (*self._salts[1:], fresh)]
        kept = [salt for salt, end in zip(self._salts, ended, strict=False) if now_ns - end < self._keep_ns]
        _write(self._path, [*kept, fresh])
        self._salts = [*kept, fresh]

    def __len__(self) -> int:
        """Return how many salts are kept."""
        return len(self._salts)


@dataclass(frozen=True, slots=True)
class Veil:
    """Hashes the identifiers of a request before anything is made of it."""

    keyring: Keyring
    kinds: frozenset[Identifier]

    def __call__(self, context: RequestContext) -> RequestContext:
        """Return *context* with what is to be hashed in its hashed form."""
        changes: dict[str, object] = {}
        for kind in ("user", "tenant"):
            if kind in self.kinds and getattr(context, kind):
                changes[kind] = self.keyring.hashed(kind, getattr(context, kind))
        if context.documents and not self.kinds.isdisjoint(("document", "tenant")):
            changes["documents"] = [self._document(document) for document in context.documents]
        return msgspec.structs.replace(context, **changes) if changes else context

    def _document(self, document: Document) -> Document:
        changes: dict[str, object] = {}
        if "document" in self.kinds:
            changes["id"] = self.keyring.hashed("document", document.id)
        if "tenant" in self.kinds and TENANT_LABEL in document.labels:
            tenant = self.keyring.hashed("tenant", document.labels[TENANT_LABEL])
            changes["labels"] = {**document.labels, TENANT_LABEL: tenant}
        return msgspec.structs.replace(document, **changes) if changes else document


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Have the file *path* for this process alone."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot keep the salts {path}: {error.strerror} (privacy.salts_file)") from error
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _read(path: Path) -> list[Salt]:
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(number)
            content = os.read(number, _MAX_FILE_BYTES) if stat.S_ISREG(found.st_mode) else b""
        finally:
            os.close(number)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"cannot read the salts {path}: {error.strerror} (privacy.salts_file)") from error
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(f"others can use the salts {path}; chmod 600 it (privacy.salts_file)")
    try:
        salts = msgspec.json.decode(content, type=list[Salt])
        for salt in salts:
            salt.hashed("user", "")
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"{path} holds no salts: {error} (privacy.salts_file)") from error
    return sorted(salts, key=lambda salt: salt.since_ns)


def _write(path: Path, salts: list[Salt]) -> None:
    """Keep *salts*; they are on disk when this returns."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_durably(path, msgspec.json.encode(salts), path.with_name(path.name + ".new"))
    except OSError as error:
        raise ConfigError(f"cannot keep the salts {path}: {error.strerror} (privacy.salts_file)") from error
