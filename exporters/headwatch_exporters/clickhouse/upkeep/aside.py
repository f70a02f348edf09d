"""What was set aside in front of the store: said, given to the store once more, or dropped.

A batch goes in under the token that it had, so one that the store took in part is completed, and one that it took is not
doubled, as long as it has not taken 1,000 others since.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from headwatch.errors import CommandError, SpoolError, StoreError, StoreUnavailable
from headwatch_exporters.spool.aside import FOLDER, Aside, listed
from headwatch_exporters.spool.lock import lock
from headwatch_exporters.spool.losses import Losses, reason_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from headwatch_exporters.clickhouse.connection import Connection


class Entry(msgspec.Struct, frozen=True):
    """What lies aside."""

    name: str
    table: str
    """Empty: bytes of the spool that nobody could read."""
    rows: int
    bytes: int
    """On disk."""
    time_ns: int
    """When the delivery was made; 0: nobody knows."""
    reason: str


class Retried(msgspec.Struct):
    """What became of what lay aside."""

    taken: list[str] = []
    dropped: list[str] = []
    left: list[Entry] = []


def entries(spool: Path, names: Collection[str] = ()) -> list[Entry]:
    """Return what lies aside in the folder of *spool*, longest first; of *names* only, where there are any.

    Raises:
        CommandError: One of *names* does not lie there.
    """
    found = [
        Entry(_name(path), note.table, note.rows, path.stat().st_size, note.time_ns, note.reason)
        for path, note in listed(spool / FOLDER)
    ]
    unknown = set(names) - {entry.name for entry in found}
    if unknown:
        raise CommandError(f"nothing of that name was set aside: {min(unknown)}")
    return [entry for entry in found if not names or entry.name in names]


def retry(connection: Connection, spool: Path, names: Collection[str] = ()) -> Retried:
    """Give what lies aside to the store once more; what it takes goes, what it refuses stays with what it says now.

    Raises:
        SpoolError: A sidecar uses the spool, or the disk does not let us.
        StoreUnavailable: The store is away.
    """
    wanted = {entry.name for entry in entries(spool, names)}
    taken: list[str] = []
    if not wanted:
        return Retried()
    with _held(spool) as aside:
        for path, batch in list(aside.entries()):
            if _name(path) not in wanted or batch is None:
                continue
            try:
                connection.insert_batch(batch)
            except StoreUnavailable:
                raise
            except StoreError as error:
                aside.told(path, str(error))
            else:
                aside.replace(path, None)
                taken.append(_name(path))
    return Retried(taken, [], entries(spool))


def drop(spool: Path, names: Collection[str] = ()) -> Retried:
    """Delete what lies aside, for good.

    Raises:
        SpoolError: A sidecar uses the spool, or the disk does not let us.
    """
    wanted = {entry.name for entry in entries(spool, names)}
    if not wanted:
        return Retried()
    with _held(spool) as aside:
        for path, _ in listed(aside.folder):
            if _name(path) in wanted:
                aside.replace(path, None)
    return Retried([], sorted(wanted), entries(spool))


@contextmanager
def _held(spool: Path) -> Iterator[Aside]:
    """Yield what lies aside while the spool is ours."""
    held = -1
    try:
        held = lock(spool)
        yield Aside(spool / FOLDER, Losses())
    except BlockingIOError as error:
        raise SpoolError("in_use", f"the spool {spool} is in use: stop the sidecar first") from error
    except OSError as error:
        raise SpoolError(reason_of(error), f"cannot use the spool {spool}: {error.strerror or error}") from error
    finally:
        if held >= 0:
            os.close(held)


def _name(path: Path) -> str:
    return path.name.split(".", 1)[0]
