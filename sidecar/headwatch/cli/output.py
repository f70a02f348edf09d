"""What a command writes to stdout: one JSON document or one table.  Logs, an engine's included, go to stderr."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from headwatch.incident.paint import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_GAP = "  "


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send whatever is written to file descriptor 1, by C libraries and child processes too, to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def print_json(document: Any) -> None:
    """Write *document* (plain values, structs or dataclasses) to stdout as indented JSON."""
    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write *rows* under *heads*, columns aligned; the last column is not padded.

    Names of routes, languages and documents come from clients: what a terminal would obey is left out of every cell.
    """
    lines = [heads, *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads) - 1)]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=True))
        print(_GAP.join((*padded, line[-1])))
