"""The parts of an embedded store's tables as they lie on disk, and the tokens that belong to them.

Two things leave an insert acknowledged, or taken as done when it comes again, whose rows are nowhere:

- ClickHouse notes a token in its table's log just before it moves the part that goes with it into place.  A process that is
  killed in between leaves a *lost token*.
- On a disk that has run full chDB (4.4, engine 26.9) writes parts, of inserts and of merges, whose files are empty or lack some
  of their content, and reports neither.  Such a *torn part* cannot be read, and at the next start of the store it is set aside.

So a token whose part is not there, or empty, is forgotten: its insert is made once more when it comes again.

A part that has lost all its rows, by their age or a purge, has files that are empty, and says so.

A line of a log is ``1`` (added) or ``2`` (dropped), the part, and the token, between tabs.  A part ``P_3_7_1`` holds the blocks
3 to 7 of the partition P, also those that were parts of their own before they were merged.
Source: ``MergeTreeDeduplicationLog.cpp`` and ``MergeTreeSink.cpp`` of ClickHouse 26.9.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headwatch.durable import replace_durably

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger("headwatch.store")

_LOGS = "deduplication_logs"
_PART = re.compile(r"([^_]+)_(\d+)_(\d+)_\d+(?:_\d+)?")  # the last number is there once rows of it were changed
_LINE = re.compile(rb"([12])\t([^\t\n]+)\t([^\t\n]+)\n")
_SIZES = "SELECT path, bytes_on_disk FROM system.parts WHERE active"
"""The size is that of the checksums, so of what was to be written, without some small files."""
_NOT_SUMMED = frozenset({
    "checksums.txt", "columns.txt", "columns_substreams.txt", "default_compression_codec.txt", "metadata_version.txt",
})  # fmt: skip
_NEVER_EMPTY = re.compile(r"checksums\.txt|columns\.txt|count\.txt|data\.bin|.*\.c?mrk\d?")


def tables(store: Path) -> list[Path]:
    """Return the folders of the tables of the embedded *store* that remember tokens."""
    return sorted(folder.parent for folder in store.glob(f"store/*/*/{_LOGS}"))


def torn_parts(query: Callable[[str], str], since_seconds: int = 0) -> dict[str, set[str]]:
    """Return the parts of an open store, made from *since_seconds* (since 1970) on, that are smaller than they should be.

    They are given by the name of their table's folder.  *query* runs a statement and returns the answer as text.

    Raises:
        OSError: The disk cannot be read.
    """
    found: dict[str, set[str]] = {}
    for line in query(f"{_SIZES} AND modification_time >= toDateTime({since_seconds}) FORMAT TSVRaw").splitlines():
        place, size = line.split("\t")
        part = Path(place)
        with suppress(FileNotFoundError):  # merged into another one, and gone meanwhile
            there = sum(entry.stat().st_size for entry in os.scandir(part) if entry.name not in _NOT_SUMMED)
            if there < int(size) or _empty(part):
                found.setdefault(part.parent.name, set()).add(part.name)
    return found


def lost_tokens(table: Path) -> set[bytes]:
    """Return the tokens that *table* remembers although their parts are torn or not there."""
    remembered: dict[bytes, str] = {}
    for path in _logs(table):
        for operation, part, token in _LINE.findall(path.read_bytes()):
            if operation == b"1":
                remembered[token] = part.decode(errors="replace")
            else:
                remembered.pop(token, None)
    there: dict[str, list[tuple[int, int]]] = {}
    for name in _parts(table):
        if _empty(table / name):
            continue
        partition, first, last = _blocks(name)
        there.setdefault(partition, []).append((first, last))
    return {token for token, part in remembered.items() if _PART.fullmatch(part) and not _covered(part, there)}


def forget_lost(table: Path) -> None:
    """Forget the lost tokens of *table*, and lines that were cut short; nobody may insert into it.

    Raises:
        OSError: The disk does not let us.
    """
    lost = lost_tokens(table)
    for path in _logs(table):
        before = path.read_bytes()
        after = b"".join(line[0] for line in _LINE.finditer(before) if line[3] not in lost)
        if after != before:
            replace_durably(path, after, table / "headwatch-tokens.new")  # ClickHouse takes any file beside it for a log
    if lost:
        logger.warning("%d inserts into %s were cut short: what the spool has of them is inserted once more", len(lost), table)


def forget_all_lost(store: Path) -> None:
    """Forget the lost tokens of all tables of *store*, unless a process has it open.

    Raises:
        OSError: The disk does not let us.
    """
    found = tables(store)
    if not found:
        return
    with _held(store) as held:
        if held:
            for table in found:
                forget_lost(table)


def _logs(table: Path) -> list[Path]:
    """Return the logs of *table*, oldest first."""
    return sorted((table / _LOGS).glob("deduplication_log_*.txt"), key=lambda path: int(path.stem.rpartition("_")[2]))


def _parts(table: Path) -> set[str]:
    return {entry.name for entry in os.scandir(table) if _PART.fullmatch(entry.name) and entry.is_dir()}


def _empty(part: Path) -> bool:
    """Return whether *part* holds nothing though it should."""
    try:
        rows = (part / "count.txt").read_bytes()
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(part) if entry.is_file()}
    except FileNotFoundError:
        return False  # merged into another one, and gone meanwhile
    return rows != b"0" and not all(size for name, size in sizes.items() if _NEVER_EMPTY.fullmatch(name))


def _blocks(part: str) -> tuple[str, int, int]:
    partition, first, last = _PART.fullmatch(part).groups()  # type: ignore[union-attr]  # looked at before
    return partition, int(first), int(last)


def _covered(part: str, there: dict[str, list[tuple[int, int]]]) -> bool:
    partition, first, last = _blocks(part)
    return any(low <= first and last <= high for low, high in there.get(partition, ()))


@contextmanager
def _held(store: Path) -> Iterator[bool]:
    """Hold *store* as chDB does; yield whether that could be done, which it cannot while a process has it open."""
    status = os.open(store / "status", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.flock(status, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            named = store / "status"
            yield named.exists() and os.path.samestat(os.fstat(status), named.stat())
    finally:
        os.close(status)
