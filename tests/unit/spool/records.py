"""Small records for the spool, and what a spool holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch_exporters.spool.record import Batch, BatchWriter, Record

if TYPE_CHECKING:
    from headwatch_exporters.spool.lane import LaneName
    from headwatch_exporters.spool.spool import Spool

SECOND = 1_000_000_000


def batch(name: str, table: str = "t", rows: int = 1, content: bytes | None = None) -> Batch:
    """Return a batch whose token is *name*; its blocks are *content*, or the name."""
    writer = BatchWriter(table, ("a", "b"), name)
    writer.add(rows, [name.encode() if content is None else content])
    return writer.batch()


def record(number: int, *batches: Batch) -> Record:
    """Return the record of the delivery made in second *number*; without *batches*, one of table ``t`` named by it."""
    return Record(number * SECOND, batches or (batch(f"r{number}"),))


def waiting(spool: Spool) -> list[int]:
    """Return the seconds of the records that wait, oldest first."""
    return [one.time_ns // SECOND for one in spool.records()]


def send(spool: Spool, lane: LaneName, times: int = 1000) -> list[int]:
    """Take and finish at most *times* records of *lane*; return their seconds."""
    sent = []
    while len(sent) < times and (taken := spool.take(lane)) is not None:
        spool.done(taken)
        sent.append(taken.record.time_ns // SECOND)
    return sent
