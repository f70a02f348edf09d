"""A secret that lies in a file: read once, and refused where others could read it too.

The rule is that of PostgreSQL for its key file: the file belongs to the user who reads it and nobody else may do anything
with it (0600), or it belongs to root and its group may read it (0640: how an orchestrator mounts a secret).
"""

from __future__ import annotations

import os
import secrets
import stat
from typing import TYPE_CHECKING

from headwatch.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MIN_BYTES = 16
MAX_BYTES = 4096
_NEW_BYTES = 32


def read_secret(setting: str, path: str) -> bytes:
    """Return the secret in the file *path*, which *setting* names, without white space around it.

    Raises:
        ConfigError: The file cannot be read, others may read it, or what it holds is too short or too long.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:  # a pipe would block
            found = os.fstat(stream.fileno())  # of what is open: the name may lead elsewhere by now
            secret = stream.read(MAX_BYTES + 1).strip() if stat.S_ISREG(found.st_mode) else b""
    except OSError as error:
        raise ConfigError(f"{setting}: cannot read {path!r}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{setting}: {path!r} is no ordinary file")
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in {0, os.geteuid()}:
        raise ConfigError(f"{setting}: {path!r} belongs to user {found.st_uid}, who can change it; chown it to the user that "
                          "runs this process")
    if mode & (0o027 if found.st_uid == 0 != os.geteuid() else 0o077):
        raise ConfigError(f"{setting}: others can use {path!r} (mode {mode:04o}); chmod 600 it")
    if not MIN_BYTES <= len(secret) <= MAX_BYTES:
        raise ConfigError(f"{setting}: {path!r} holds {len(secret)} bytes; a secret has {MIN_BYTES} to {MAX_BYTES}, for "
                          "example from `openssl rand -hex 32`")
    return secret


def write_secret(path: Path) -> None:
    """Write a new random secret into the file *path*, for its owner alone.

    Raises:
        OSError: The file is there already, or cannot be written.
    """
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(number, "w") as stream:
        stream.write(secrets.token_hex(_NEW_BYTES) + "\n")
