"""Inserts of Native blocks under a token: into chDB in this process, or over HTTP.  Both take the same zstd frame.

chDB reads it from a file in memory, which no kill leaves behind.  Its other ways in do not do: ``send_insert`` (4.4) reports
rows as written that a full disk, a constraint or too many parts kept out, data behind the statement ends at an empty line, and
the driver's own insert goes through the temporary folder.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any, Protocol

from headwatch.errors import BatchRefused, StoreError, StoreUnavailable
from headwatch_exporters.clickhouse.writing.guard import free_bytes
from headwatch_exporters.clickhouse.writing.mending import Mending
from headwatch_exporters.clickhouse.writing.parts import torn_parts

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch_exporters.spool.record import Batch

SETTINGS = {
    "async_insert": 0,  # chDB's default of 1 makes each small insert wait
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "optimize_on_insert": 0,  # rows of one key add up when parts merge: a quarter less CPU time for an insert into the rungs
}
_CODE = re.compile(r"\bCode: (\d+)")
BATCH_AT_FAULT = frozenset({
    6,  # CANNOT_PARSE_TEXT
    8, 9, 10, 16, 20,  # columns that the table has not, or not of that size
    15,  # DUPLICATE_COLUMN
    26, 27, 33, 38, 41, 72,  # what cannot be parsed or read to its end
    32,  # ATTEMPT_TO_READ_AFTER_EOF
    44, 50, 53, 69, 70,  # types and values that do not fit
    117,  # INCORRECT_DATA
    128, 131,  # arrays and strings that are too large
    321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    469,  # VIOLATED_CONSTRAINT
    561,  # ZSTD_DECODER_FAILED
})  # fmt: skip
"""Error codes of ClickHouse that blame what is inserted: the same batch fails tomorrow as well."""
PASSES = frozenset({
    74, 75, 77, 88, 204, 214, 294, 400, 425, 531,  # a file that cannot be read, written, flushed: the disk's own errors
    95, 96, 198, 203, 209, 210, 279, 297,  # peers that cannot be reached
    159, 160,  # too slow
    173, 241,  # memory
    202, 236, 394, 473,  # too many queries; ended from outside
    225, 242, 286, 289, 319, 369, 999,  # Keeper, and what is read-only or not enough while it or a replica is away
    243,  # NOT_ENOUGH_SPACE
})  # fmt: skip
"""Error codes that say nothing of what was asked: the same statement goes through once space, memory, disk or peer are back."""
_PASSING_WORDS = (
    "No space left", "not enough space", "NOT_ENOUGH_SPACE", "Read-only file system", "Input/output error",
    "Disk quota exceeded", "Cannot allocate memory", "Too many open files", "std::bad_alloc",
)  # fmt: skip
"""The system's own words, where chDB passes them on under whatever code."""


class Inserts(Protocol):
    """What takes batches."""

    def insert(self, batch: Batch) -> None:
        """Insert *batch*; one whose token is known already changes nothing.

        Raises:
            BatchRefused: The store will never take it.
            StoreUnavailable: The store cannot be reached.
            StoreError: The store refuses at the moment.
        """
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...


class EmbeddedInserts:
    """Inserts into the chDB of this process, on a handle of its own beside that of the queries.

    A disk that is nearly full is waited for, and what was written is looked at before it counts: the disk may have filled up
    meanwhile (:mod:`headwatch_exporters.clickhouse.writing.parts`).
    """

    def __init__(self, path: str, min_free_bytes: int) -> None:
        import chdb  # noqa: PLC0415 - heavy

        self._handle = chdb.connect(path)
        self._path = path
        self._min_free_bytes = min_free_bytes
        self._url = f"chdb://{path}"
        self.mending = Mending(path, lambda sql: str(self._handle.query(sql)))
        self._doubtful = True
        """Whether there may be what an insert left that failed, in this life of the store or an earlier one."""

    def insert(self, batch: Batch) -> None:
        """Insert *batch*."""
        require_space(self._path, f"insert into {batch.table} on {self._url}", self._min_free_bytes + 2 * batch.native_bytes)
        if self._doubtful:
            self._mend(batch)
        self._doubtful = True
        started = int(time.time()) - 1  # ClickHouse gives a part the time in whole seconds
        columns = ", ".join(map(_quoted, batch.columns))
        settings = ", ".join(f"{name} = {value}" for name, value in SETTINGS.items())
        token = _quoted(batch.token, "'")
        with os.fdopen(os.memfd_create("headwatch-batch", os.MFD_CLOEXEC), "wb", buffering=0) as file:
            file.write(batch.block)
            try:
                self._handle.query(
                    f"INSERT INTO {_quoted(batch.table)} ({columns}) "
                    f"FROM INFILE '/proc/self/fd/{file.fileno()}' COMPRESSION 'zstd' "
                    f"SETTINGS {settings}, insert_deduplication_token = {token} FORMAT Native"
                )
            except Exception as error:
                raise failure(batch.table, self._url, error) from error
        try:
            torn = torn_parts(lambda sql: str(self._handle.query(sql)), started)
        except Exception as error:
            raise StoreUnavailable(f"insert into {batch.table} on {self._url} was not looked at: {cause(error)}") from error
        if torn:
            self._mend(batch)
            raise StoreUnavailable(f"insert into {batch.table} on {self._url} failed: the disk ran full meanwhile")
        self._doubtful = False

    def mend(self) -> int:
        """Put right what a disk that ran full has left, and return how many tables had to be.

        Raises:
            Exception: The store or the disk does not let us.
        """
        mended = self.mending.mend()
        self._doubtful = False
        return mended

    def _mend(self, batch: Batch) -> None:
        try:
            self.mend()
        except Exception as error:
            message = f"insert into {batch.table} on {self._url} failed: what a full disk left is not mended: {cause(error)}"
            raise StoreUnavailable(message) from error

    def close(self) -> None:
        """Close the handle."""
        self._handle.close()


class HttpInserts:
    """Inserts over HTTP, on a session of its own: an insert that takes a minute holds up no query."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    def insert(self, batch: Batch) -> None:
        """Insert *batch*: its zstd frame travels as it lies in the spool."""
        try:
            self._client.raw_insert(
                _quoted(batch.table), list(batch.columns), batch.block, fmt="Native", compression="zstd",
                settings={**SETTINGS, "insert_deduplication_token": batch.token},
            )  # fmt: skip
        except Exception as error:
            raise failure(batch.table, self._url, error) from error

    def close(self) -> None:
        """Close the session."""
        self._client.close()


def require_space(path: str | Path, what: str, size: int) -> None:
    """See that *size* bytes are free under the embedded store at *path*.

    Raises:
        StoreUnavailable: They are not; *what* is what was to be done.
    """
    free = free_bytes(path)
    if free < size:
        raise StoreUnavailable(f"{what} failed: the disk is nearly full: {free >> 20} MiB are free of {size >> 20} that it "
                               "needs (store.min_free_bytes)")


def passes(error: Exception) -> bool:
    """Return whether *error* of the driver is one of the store's state, which passes, and not of what was asked."""
    return error_code(error) in PASSES or any(words in str(error) for words in _PASSING_WORDS)


def failure(table: str, url: str, error: Exception) -> StoreError:
    """Return what *error* of the driver means for the batch."""
    code = error_code(error)
    message = f"insert into {table} on {url} failed: {cause(error)}"
    if code is None:
        return StoreUnavailable(message)
    if code in BATCH_AT_FAULT:
        return BatchRefused(message)
    return StoreUnavailable(message) if passes(error) else StoreError(message)


def error_code(error: Exception) -> int | None:
    """Return the code of ClickHouse's answer; None where there was no answer."""
    code = getattr(error, "code", None)
    if isinstance(code, int):
        return code
    found = _CODE.search(str(error))
    return int(found[1]) if found else None


def cause(error: Exception) -> str:
    """Return one line that says what is wrong: the system's own words where a connection failed."""
    if found := re.search(r"\[Errno -?\d+\] ([^')]+)", str(error)):
        return found[1]
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _quoted(name: str, mark: str = "`") -> str:
    return mark + name.replace("\\", "\\\\").replace(mark, f"\\{mark}") + mark
