"""The audit of reads as a file that stays: every line of the log ``headwatch.audit``, where both surfaces write.

A line is in the file before the next one is taken.  What cannot be written is counted, said once, and shown in ``/readyz``;
reading goes on: an audit that is full must not blind those who are on call.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from headwatch.errors import ConfigError
from headwatch_exporters.lines_file import LinesFile

if TYPE_CHECKING:
    from headwatch.config import AuditConfig

AUDIT = "headwatch.audit"

logger = logging.getLogger("headwatch.sidecar")


class AuditFile(logging.Handler):
    """Appends what is logged; a handler's own lock lets one thread at a time in."""

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
        self._lost = 0
        self.failure = ""
        """Why the last line is not in the file; empty where it is."""

    def begin(self) -> None:
        """Take lines from now on, whatever level other logs have."""
        audit = logging.getLogger(AUDIT)
        audit.setLevel(logging.INFO)
        audit.addHandler(self)

    def end(self) -> None:
        """Take no more."""
        logging.getLogger(AUDIT).removeHandler(self)
        self.acquire()
        try:
            self._file.close()
        finally:
            self.release()
        self.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line."""
        try:
            self._file.append(record.getMessage().encode("utf-8", "backslashreplace") + b"\n")
        except OSError as error:
            self._lost += 1
            if not self.failure:
                logger.error("reads are not audited: %s", error.strerror)  # noqa: TRY400 - one line
            self.failure = f"{self._lost} reads are not in the file: {error.strerror}"
        else:
            self.failure = ""
