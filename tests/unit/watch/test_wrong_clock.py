"""A clock that is wrong for one window, or for as long as the sidecar's own is right, costs no incident."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from headwatch.watch.watch import Watch

from .scenes import CONFIG, WINDOW_NS, taught, window

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch.observed import ObservedWindow

AHEAD_NS = (CONFIG.store.incident_ttl_days + 30) * 86_400 * 10**9


def ahead(number: int) -> ObservedWindow:
    late = window(number)
    return replace(late, start_ns=late.start_ns + AHEAD_NS, end_ns=late.end_ns + AHEAD_NS)


def with_resolved(folder: Path) -> tuple[Watch, int]:
    """Return a watch with an incident that was resolved, and the number of the next window."""
    watch, number = taught(folder)
    while not watch.book.list():
        watch.take(window(number, grounding_ratio=0.01, stale_mass=0.9))
        number += 1
    for incident in watch.book.open_incidents():
        watch.book.resolve(incident.id, "ada", "true")
    return watch, number


def test_resolved_incidents_outlive_windows_with_a_wrong_clock(tmp_path: Path) -> None:
    watch, number = with_resolved(tmp_path)
    resolved = {one.id for one in watch.book.list()}
    for later in range(number, number + 3):  # the sidecar's own clock stands where it stood
        watch.take(ahead(later))
    assert resolved <= {one.id for one in watch.book.list()}
    watch.close()


def test_one_window_is_not_believed_whatever_the_time_now(tmp_path: Path) -> None:
    watch, number = with_resolved(tmp_path)
    resolved = {one.id for one in watch.book.list()}
    watch.close()
    watch = Watch(CONFIG, tmp_path, lambda: opened_at(number) + 2 * AHEAD_NS)
    watch.take(ahead(number))
    assert resolved <= {one.id for one in watch.book.list()}
    watch.take(ahead(number + 1))
    assert not resolved & {one.id for one in watch.book.list()}, "two are"
    watch.close()


def opened_at(number: int) -> int:
    return window(number).end_ns + WINDOW_NS
