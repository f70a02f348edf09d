"""Checks of the addresses: does the sidecar answer, and if not, who holds its ports and its store."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TYPE_CHECKING

from headwatch.config import store_url
from headwatch.doctor.context import Finding
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
    """With no sidecar that answers: is its store held by another process."""
    if context.sidecar.answer == "headwatch" or context.loaded is None or not context.loaded.config.store.enabled:
        return None
    url = store_url(context.loaded.config.store, context.environ)
    if not url.startswith(_CHDB):
        return None
    path = Path(url.removeprefix(_CHDB))
    holder = store_holder(path)
    if holder is not None:
        return Finding("store", "fail", f"the store {path} is in use by {holder}, and no sidecar answers",
                       "end that process (a sidecar that hangs, or another program on the store), then start the sidecar")
    return Finding("store", "ok", f"{path} is free" if path.exists() else f"{path} will be created")


def wire_endpoint(context: Context) -> Finding | None:
    """Is the workers' endpoint held by the sidecar, and by nobody else."""
    if context.loaded is None:
        return None
    endpoint = context.loaded.config.wire.endpoint
    listening = listens(endpoint)
    if listening is None:
        return None
    running = context.sidecar.answer == "headwatch"
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
    """
    try:
        with (path / "status").open("rb") as status:
            try:
                fcntl.flock(status, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                words = status.read(256).decode("ascii", "replace").split()
                return f"process {words[1]}" if words[:1] == ["PID:"] and len(words) > 1 else "another process"
    except OSError:
        return None  # no store yet, or not ours to read
    return None


CHECKS: tuple[Callable[[Context], Finding | None], ...] = (sidecar_reachable, store_free, wire_endpoint)
