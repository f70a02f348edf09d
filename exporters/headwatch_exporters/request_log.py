"""The log of requests: one line of JSON for each sampled request that ended, on disk or on standard output.

It is the provenance of an answer: which documents and versions it was given, what share of its attention each drew, and the
caller's trace.  The fields are in docs/request-log.md.  A delivery's lines are appended as a whole or not at all, so that a
delivery that is given again is written once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headwatch.errors import ConfigError, ExportError
from headwatch_exporters.provenance import request_facts

if TYPE_CHECKING:
    from headwatch.config import RequestsConfig
    from headwatch.records import Delivery

STANDARD_OUTPUT = "-"


class RequestLog:
    """Writes lines.  A file that would pass ``log_max_bytes`` is put aside first as ``PATH.1``, and so on."""

    name = "request_log"

    def __init__(self, config: RequestsConfig) -> None:
        """Open the log.

        Raises:
            ConfigError: It cannot be written.
        """
        self._config = config
        self._encoder = msgspec.json.Encoder()
        self._file = -1
        if config.log_path != STANDARD_OUTPUT:
            try:
                self._file = self._open(Path(config.log_path))
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
            return 0
        lines = b"".join(
            self._encoder.encode(request_facts(record, delivery.service)) + b"\n" for record in delivery.requests
        )
        try:
            if self._file < 0:
                while lines:
                    lines = lines[os.write(sys.stdout.fileno(), lines) :]
            else:
                self._append(lines)
        except OSError as error:
            raise ExportError(f"the log of requests {self._config.log_path}: {error.strerror}") from error
        return len(delivery.requests)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)

    def _append(self, lines: bytes) -> None:
        size = os.fstat(self._file).st_size
        if size and size + len(lines) > self._config.log_max_bytes:
            self._rotate()
            size = 0
        written = 0
        try:
            while written < len(lines):
                written += os.write(self._file, lines[written:])
        except OSError:
            os.ftruncate(self._file, size)
            raise

    def _rotate(self) -> None:
        path = Path(self._config.log_path)
        fresh = self._open(path.with_name(f"{path.name}.new"))  # first: what cannot be opened must cost no file
        kept = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, self._config.log_files))]
        if path.exists():
            for older, newer in zip(reversed(kept[1:]), reversed(kept[:-1]), strict=True):
                if newer.exists():
                    newer.replace(older)
        path.with_name(f"{path.name}.new").replace(path)
        os.close(self._file)
        self._file = fresh

    @staticmethod
    def _open(path: Path) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
