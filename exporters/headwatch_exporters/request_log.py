"""The log of requests: one line of JSON for each sampled request that ended, on disk or on standard output.

It is the provenance of an answer: which documents and versions it was given, what share of its attention each drew, and the
caller's trace.  The fields are in docs/request-log.md.  A delivery's lines are appended as a whole or not at all, so that a
delivery that is given again is written once.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from headwatch.errors import ConfigError, ExportError
from headwatch_exporters.lines_file import LinesFile
from headwatch_exporters.provenance import request_facts

if TYPE_CHECKING:
    from headwatch.config import RequestsConfig
    from headwatch.records import Delivery

STANDARD_OUTPUT = "-"


class RequestLog:
    """Writes lines into a :class:`~headwatch_exporters.lines_file.LinesFile`, or to standard output."""

    name = "request_log"

    def __init__(self, config: RequestsConfig) -> None:
        """Open the log.

        Raises:
            ConfigError: It cannot be written.
        """
        self._config = config
        self._encoder = msgspec.json.Encoder()
        self._file: LinesFile | None = None
        if config.log_path != STANDARD_OUTPUT:
            try:
                self._file = LinesFile(config.log_path, config.log_max_bytes, config.log_files, config.log_days)
            except OSError as error:
                raise ConfigError(
                    f"cannot write the log of requests {config.log_path}: {error.strerror} (requests.log_path)"
                ) from error

    def export(self, delivery: Delivery) -> int:
        """Write a line for each request of *delivery* and return how many.

        Raises:
            ExportError: There is no room, or the file cannot be written; nothing of *delivery* is in it then.
        """
        if not delivery.requests:
            self._expire()  # deliveries come every few seconds, also where there is no traffic
            return 0
        lines = b"".join(
            self._encoder.encode(request_facts(record, delivery.service)) + b"\n" for record in delivery.requests
        )
        try:
            if self._file is None:
                while lines:
                    lines = lines[os.write(sys.stdout.fileno(), lines) :]
            else:
                self._file.append(lines)
        except OSError as error:
            raise ExportError(f"the log of requests {self._config.log_path}: {error.strerror}") from error
        return len(delivery.requests)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _expire(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # said where there is something to write
                self._file.expire()
