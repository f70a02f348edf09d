"""What lies in files beside the store: history, incidents, what is remembered of documents, the log of requests.

SQLite keeps what was deleted in free pages and in its log, so both are made anew after anything was removed.  Each function
returns how many things it removed; asked again it returns 0.
"""

from __future__ import annotations

import errno
import glob
import gzip
import os
import re
import sqlite3
import zlib
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from headwatch.findings import Incident
from headwatch.history.file import History, forget_freed_pages
from headwatch.identifiers import TENANT_LABEL
from headwatch.incident.ledger import BUSY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.findings import RequestExhibit
    from headwatch.observed import ObservedRequest, ObservedWindow
    from headwatch.purge.wanted import Wanted

_BETWEEN = "\x1f"
"""What the book of documents writes between a source, an id and a version."""
_PURGING, _GZIP = ".purging", ".gz"
_SAYS_TIME = re.compile(rb'"time":\s*"([^"]+)"')
"""When a request ended, in a line of which the end is missing."""


def purge_history(path: Path, wanted: Wanted) -> int:
    """Remove requests and documents from the examples of the windows at *path*, and windows that ended before a moment.

    Raises:
        HistoryError: It is no history, or cannot be written.
    """
    if not path.exists():
        return 0
    removed = 0

    def change(window: ObservedWindow) -> ObservedWindow | None:
        nonlocal removed
        if window.end_ns <= wanted.before_ns:
            removed += 1
            return None
        kept = [one for one in window.requests if not _takes(one, wanted)]
        requests = tuple(_without_documents(one, wanted) for one in kept)
        gone = len(window.requests) - len(kept) + sum(
            len(before.documents) - len(after.documents) for before, after in zip(kept, requests, strict=True)
        )
        removed += gone
        return replace(window, requests=requests) if gone else window

    with History(path) as history:
        history.rewrite(change)
    return removed


def purge_incidents(path: Path, wanted: Wanted) -> int:
    """Remove exhibits from the incidents at *path*, and incidents that were resolved before a moment.

    Raises:
        sqlite3.Error: It is no file of incidents, or cannot be written.
    """
    if not path.exists():
        return 0
    removed = 0
    with closing(sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)) as file:
        file.execute("PRAGMA foreign_keys = ON")
        file.execute("BEGIN IMMEDIATE")
        for table, key in (("incident", "id"), ("outbox", "number")):
            for identity, body in file.execute(f"SELECT {key}, body FROM {table}").fetchall():  # noqa: S608 - two constants
                before = msgspec.json.decode(body, type=Incident)
                if table == "incident" and 0 < before.resolved_ns < wanted.before_ns:
                    file.execute("DELETE FROM audit WHERE incident = ?", (identity,))
                    file.execute("DELETE FROM incident WHERE id = ?", (identity,))
                    removed += 1
                    continue
                shown, gone = without_wanted(before, wanted)
                if gone:
                    after = msgspec.json.encode(shown)
                    file.execute(f"UPDATE {table} SET body = ? WHERE {key} = ?", (after, identity))  # noqa: S608 - the same
                    removed += gone
        file.execute("COMMIT")
        forget_freed_pages(file)  # also of a purge that was cut short before
    return removed


def without_wanted(incident: Incident, wanted: Wanted) -> tuple[Incident, int]:
    """Return *incident* without the exhibits that are to go, and how many those were."""
    shown = incident.exhibits
    documents = tuple(one for one in shown.documents if not wanted.takes_document(one.id, {TENANT_LABEL: one.tenant}))
    requests = tuple(one for one in shown.requests if not _takes(one, wanted))
    gone = len(shown.documents) - len(documents) + len(shown.requests) - len(requests)
    exhibits = msgspec.structs.replace(shown, documents=documents, requests=requests)
    return msgspec.structs.replace(incident, exhibits=exhibits), gone


def purge_documents(path: Path, wanted: Wanted) -> int:
    """Remove what the book of documents at *path* remembers of a document.

    Raises:
        OSError: The file cannot be written.
    """
    if wanted.kind != "document" or not path.exists():
        return 0
    removed = 0

    def without(value: Any) -> Any:
        nonlocal removed
        if not isinstance(value, dict):
            return value
        kept = {
            key: without(item) for key, item in value.items() if not any(map(wanted.takes_remembered, key.split(_BETWEEN)[1:]))
        }
        removed += len(value) - len(kept)
        return kept

    _unfinished(_real(path)).unlink(missing_ok=True)
    path.with_suffix(".tmp").unlink(missing_ok=True)
    content = without(msgspec.json.decode(path.read_bytes()))
    if removed:
        content.pop("lengths", None)  # by a digest of the document, which could be guessed: usual lengths are learned anew
        _write(path, msgspec.json.encode(content))
    return removed


def purge_request_logs(path: Path, wanted: Wanted) -> int:
    """Remove lines, and documents within lines, from the log of requests at *path* and the files put aside beside it.

    Raises:
        OSError: A file cannot be read or written.
    """
    removed = 0
    for log in log_files(path):
        _unfinished(log).unlink(missing_ok=True)
        kept, gone, ended_ns = [], 0, 0
        for line in _lines(log):
            facts = _facts(line)
            ended_ns = _ended_ns(line) or ended_ns  # a line is no older than the one before it
            if facts is None and not wanted.named_in(line) and (not line or ended_ns >= wanted.before_ns):
                kept.append(line)
            elif facts is None or _is_theirs(facts, wanted):  # torn by a kill: nobody can take it apart
                gone += 1
            else:
                documents = [one for one in facts["documents"] if not wanted.takes_document(one["id"], one["labels"])]
                less = len(facts["documents"]) - len(documents)
                kept.append(msgspec.json.encode({**facts, "documents": documents}) if less else line)
                gone += less
        if gone:
            content = b"".join(line + b"\n" for line in kept)
            _write(log, gzip.compress(content) if log.suffix == _GZIP else content)
            removed += gone
    return removed


def requests_in_logs(path: Path, wanted: Wanted) -> Iterator[str]:
    """Yield the engine ids of the requests of a user or tenant in the log at *path* and the files put aside beside it.

    Raises:
        OSError: A file cannot be read.
    """
    for log in log_files(path):
        for line in _lines(log):
            facts = _facts(line)
            if facts is not None and _is_theirs(facts, wanted):
                yield facts["engine_id"]


def log_files(path: Path) -> list[Path]:
    """Return the log of requests at *path* and the files put aside beside it, by headwatch or logrotate, that are there.

    Links are followed: what is put aside may lie beside the link, beside what it leads to, or be a link itself.
    """
    found = []
    for log in dict.fromkeys((path, _real(path))):
        aside = sorted(one for one in log.parent.glob(f"{glob.escape(log.name)}[.-][0-9]*") if one.suffix != _PURGING)
        found += [log, *aside]
    return [one for one in dict.fromkeys(map(_real, found)) if one.is_file()]


def _lines(log: Path) -> list[bytes]:
    content = log.read_bytes()
    if log.suffix == _GZIP:
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error) as error:
            raise OSError(errno.EIO, f"{log} was cut short; delete it") from error
    return content.splitlines()


def _facts(line: bytes) -> dict[str, Any] | None:
    """Return what a line says; None where it is none of ours."""
    try:
        facts = msgspec.json.decode(line)
    except msgspec.MsgspecError:
        return None
    return facts if isinstance(facts, dict) and {"engine_id", "time", "documents"} <= facts.keys() else None


def _ended_ns(line: bytes) -> int:
    """Return when the request of a line ended; 0 where it does not say."""
    said = _SAYS_TIME.search(line)
    try:
        return int(datetime.fromisoformat(said[1].decode()).timestamp() * 1e9) if said else 0
    except ValueError:
        return 0


def _is_theirs(facts: dict[str, Any], wanted: Wanted) -> bool:
    ended_ns = int(datetime.fromisoformat(facts["time"]).timestamp() * 1e9)
    return wanted.takes_request(facts["engine_id"], ended_ns, facts.get("user") or "", facts.get("tenant") or "")


def _takes(one: ObservedRequest | RequestExhibit, wanted: Wanted) -> bool:
    return wanted.takes_request(one.engine_id, one.time_ns, one.user, one.tenant)


def _without_documents(request: ObservedRequest, wanted: Wanted) -> ObservedRequest:
    kept = tuple(one for one in request.documents if not wanted.takes_document(one.id, one.labels))
    return request if len(kept) == len(request.documents) else msgspec.structs.replace(request, documents=kept)


def _write(path: Path, content: bytes) -> None:
    """Put *content* in the place of what lies at *path*, whole or not at all, with its rights and its owner."""
    path = _real(path)
    new = _unfinished(path)
    new.touch(mode=0o600)
    new.write_bytes(content)
    before = path.stat()
    if os.geteuid() == 0:
        os.chown(new, before.st_uid, before.st_gid)
    new.chmod(before.st_mode & 0o777)
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))  # its lines are as old as they were
    new.replace(path)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + _PURGING)
