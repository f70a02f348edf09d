"""Checks of the addresses: does the sidecar answer, and if not, who holds its ports and its store."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from headwatch.addresses import is_loopback
from headwatch.doctor.context import Finding
from headwatch.places import store_url
from headwatch.wire.endpoint import listens

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.doctor.context import Context

_CHDB = "chdb://"


def sidecar_reachable(context: Context) -> Finding | None:
    """Does a headwatch sidecar answer."""
    found = context.sidecar
    if found.answer == "other":
        return Finding("sidecar", "fail", f"{context.url}: {found.detail}; the port is in use by another program",
                       "end that program, or give the sidecar another port (http.port)")
    if found.answer == "none":
        return Finding("sidecar", "fail", f"no sidecar at {context.url}: {found.detail}",
                       "start it with `headwatch sidecar`, or name its address with --url")
    if found.health is None:
        return Finding("sidecar", "fail", f"the sidecar at {context.url} does not tell its state: {found.detail}",
                       "look into the sidecar's log; where its version differs from this one, run the doctor of its version")
    return Finding("sidecar", "ok", f"headwatch {found.version} answers at {context.url}")


def store_free(context: Context) -> Finding | None:
    """With no sidecar that answers: is its store held by another process.  A store of another machine is not looked at."""
    if context.sidecar.answer == "headwatch" or _elsewhere(context):
        return None
    if context.loaded is None or not context.loaded.config.store.enabled:
        return None
    url = store_url(context.loaded.config.store, context.environ)
    return _embedded_store(url) if url.startswith(_CHDB) else None


def _embedded_store(url: str) -> Finding:
    path = Path(url.removeprefix(_CHDB))
    if not path.is_absolute():
        return Finding("store", "fail", f"store.url {url!r} has no absolute path: the sidecar does not start with it",
                       "give chdb:///absolute/path, with three slashes")
    try:
        holder, exists = store_holder(path), path.exists()
    except PermissionError:
        return Finding("store", "warn", f"{path} may not be read by this user, so whether it is in use cannot be told",
                       "run the doctor as the sidecar's user")
    if holder is not None:
        return Finding("store", "fail", f"the store {path} is in use by {holder}, and no sidecar answers",
                       "end that process (a sidecar that hangs, or another program on the store), then start the sidecar")
    return Finding("store", "ok", f"{path} is free" if exists else f"{path} will be created")


def wire_endpoint(context: Context) -> Finding | None:
    """Is the workers' endpoint held by the sidecar, and by nobody else."""
    if context.loaded is None:
        return None
    endpoint = context.loaded.config.wire.endpoint
    if _elsewhere(context) and is_loopback(endpoint):
        return None  # this machine's endpoint says nothing of a sidecar on another
    listening = listens(endpoint)
    running = context.sidecar.answer == "headwatch"
    return None if listening is None else _listener(endpoint, listening=listening, running=running)


def _listener(endpoint: str, *, listening: bool, running: bool) -> Finding:
    if running and not listening:
        return Finding("wire", "fail", f"a sidecar runs, but nothing listens on {endpoint}, where workers send",
                       "give sidecar and vLLM the same wire.endpoint")
    if not running and listening:
        return Finding("wire", "fail", f"{endpoint} is in use by another program, and no sidecar answers",
                       "end that program (a sidecar on another HTTP port?), or set another wire.endpoint on both sides")
    return Finding("wire", "ok", f"{endpoint} {'is listened on' if listening else 'is free'}")


def store_holder(path: Path) -> str | None:
    """Return who holds the embedded store at *path* ("process 1234"), or None where nobody does.

    ClickHouse keeps an exclusive lock on the file ``status`` for as long as it has the store open, and writes its process
    id into it.  The lock asked for here is shared, and given back at once.

    Raises:
        PermissionError: The store is not ours to read.
    """
    try:
        with (path / "status").open("rb") as status:
            try:
                fcntl.flock(status, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                words = status.read(256).decode("ascii", "replace").split()
                return f"process {words[1]}" if words[:1] == ["PID:"] and len(words) > 1 else "another process"
    except PermissionError:
        raise
    except OSError:
        return None  # no store yet
    return None


def _elsewhere(context: Context) -> bool:
    return not is_loopback(urlsplit(context.url).hostname or "")


CHECKS: tuple[Callable[[Context], Finding | None], ...] = (sidecar_reachable, store_free, wire_endpoint)
