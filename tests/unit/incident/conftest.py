"""A book of incidents with two routes, what waits to be sent of it, and a clock that a test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headwatch.incident.book import Book
from headwatch.incident.outbox import Outbox

from .cases import MINUTE, START

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROUTES = ("webhook", "grafana")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_ns = START + 6 * MINUTE

    def __call__(self) -> int:
        return self.now_ns

    def pass_minutes(self, minutes: float) -> None:
        self.now_ns += int(minutes * MINUTE)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> Iterator[Book]:
    book = Book(tmp_path / "incidents.db", clock, routes=ROUTES)
    yield book
    book.close()


@pytest.fixture
def outbox(tmp_path: Path, clock: Clock, book: Book) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "incidents.db", clock)
    yield outbox
    outbox.close()
