"""The audit of reads as a file that stays: every line of the log ``headwatch.audit``, where both surfaces write.

Lines wait in memory, four mebibytes at most, for one thread that writes them: whoever answers a read never waits for the disk.
What waits is written before the end; a kill loses it.  What cannot be written, or finds no room to wait, is counted, said once,
and shown in ``/readyz``; reading goes on: an audit that is full must not blind those who are on call.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

from headwatch.errors import ConfigError
from headwatch_exporters.lines_file import LinesFile

if TYPE_CHECKING:
    from headwatch.config import AuditConfig

AUDIT = "headwatch.audit"
WAITING_BYTES = 4 * 1024 * 1024
_END_SECONDS = 10.0
"""How long the end waits for a disk that hangs."""

logger = logging.getLogger("headwatch.sidecar")


class AuditFile(logging.Handler):
    """Appends what is logged, from a thread of its own."""

    def __init__(self, config: AuditConfig) -> None:
        """Open the file.

        Raises:
            ConfigError: It cannot be written.
        """
        super().__init__(logging.INFO)
        try:
            self._file = LinesFile(config.path, config.max_bytes, config.files, config.days)
        except OSError as error:
            raise ConfigError(f"cannot write the audit {config.path}: {error.strerror} (audit.path)") from error
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = self._lost = 0
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._write, name="headwatch-audit", daemon=True)
        self.failure = ""
        """Why lines are not in the file; empty once all that waited is."""

    def begin(self) -> None:
        """Take lines from now on, whatever level other logs have."""
        self._thread.start()
        audit = logging.getLogger(AUDIT)
        audit.setLevel(logging.INFO)
        audit.addHandler(self)

    def end(self) -> None:
        """Take no more, and write what waits."""
        logging.getLogger(AUDIT).removeHandler(self)
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(_END_SECONDS)
        if self._thread.is_alive():
            logger.error("the audit file takes no lines: %d reads are not in it", self._lost + len(self._waiting))
        else:
            self._file.close()
        self.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Have one line wait to be written."""
        line = record.getMessage().encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            if self._waiting and self._waiting_bytes + len(line) > WAITING_BYTES:
                self._lose("the disk is too slow")
                return
            self._waiting.append(line)
            self._waiting_bytes += len(line)
            self._changed.notify()

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ended:
                    self._changed.wait()
                if not self._waiting:
                    return
                line = self._waiting[0]  # it counts as waiting until it is written
            problem = self._append(line)
            with self._changed:
                self._waiting.popleft()
                self._waiting_bytes -= len(line)
                if problem:
                    self._lose(problem)
                elif not self._waiting:
                    self.failure = ""

    def _append(self, line: bytes) -> str:
        """Write *line* and return why that cannot be done."""
        try:
            self._file.append(line)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _lose(self, problem: str) -> None:
        """Count a line; to be called by whoever holds the lock."""
        self._lost += 1
        if not self.failure:
            logger.error("reads are not audited: %s", problem)
        self.failure = f"{self._lost} reads are not in the file: {problem}"
