"""The file of incidents, as commands open it: whether the sidecar runs or not."""

from __future__ import annotations

import getpass
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwatch.config import Config
    from headwatch.incident.book import Book


def incident_file(config: Config) -> Path:
    """Return where incidents are kept."""
    from headwatch.incident.ledger import FILE_NAME
    from headwatch.places import drift_folder

    return drift_folder(config) / FILE_NAME


@contextmanager
def open_book(config: Config, *, make: bool = False) -> Iterator[Book]:
    """Give the book of incidents; *make* one where there is none.

    Raises:
        CommandError: There is none, and none is to be made.
        IncidentError: The file cannot be used.
    """
    from headwatch.incident.book import Book
    from headwatch.incident.outbox import routes_of

    path = incident_file(config)
    if not make and not path.exists():
        raise CommandError(f"no incident has been kept yet: there is no {path}")
    book = Book(path, routes=routes_of(config.incident), reopen_seconds=config.incident.reopen_seconds)
    try:
        yield book
    finally:
        book.close()


def this_person() -> str:
    """Return who is at the terminal, as the system knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return "somebody"
