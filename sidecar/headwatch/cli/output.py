"""One JSON document on stdout, and nothing else: logs, ours and those of engines and libraries, go to stderr."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator


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
