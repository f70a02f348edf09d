"""Which part of a side is meant: window numbers, times, or what lies before or after a release.

``FROM..TO`` and ``FROM..`` are window numbers or ISO times.  ``before:TITLE`` ends where the release was marked;
``after:TITLE`` begins there, or where its maintenance window ends, since the release is under way until then.  Both have a
greatest length, and end at a neighbouring release: what is compared is one release, not two.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch.findings import DeployEvent

    Releases = Callable[[], Sequence[DeployEvent]]

DEFAULT_SECONDS = 86_400.0
"""Length of ``before:`` and ``after:``: a day has all of its hours."""
BEFORE, AFTER = "before:", "after:"
LAST_NS = 2**63 - 1
_NS = 1_000_000_000
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Range:
    """Window numbers, both included, or times from *first* to before *last* in nanoseconds.  None is open."""

    first: int | None = None
    last: int | None = None
    timed: bool = False

    @property
    def times(self) -> tuple[int, int]:
        """Return from and until (ns) of a range of times."""
        return self.first or 0, LAST_NS if self.last is None else self.last


def parse_range(part: str | None, text: str, releases: Releases, seconds: float = DEFAULT_SECONDS) -> Range:
    """Return what *part* of the side *text* names; around a release, of which *releases* are asked, it lasts *seconds* at most.

    Raises:
        ConfigError: It is no range, ends before it begins, or no release, or several, match.
    """
    if part is None:
        return Range()
    if part.startswith((BEFORE, AFTER)):
        return _around(part, text, sorted(releases(), key=lambda release: release.time_ns), int(seconds * _NS))
    ends = part.split("..")
    if len(ends) != 2 or not any(ends):  # noqa: PLR2004 - from and to
        raise ConfigError(f"{text!r}: a range is @FROM..TO, with window numbers or times, of which one end may be left out, "
                          "@before:TITLE or @after:TITLE of a release")  # fmt: skip
    timed = not all(end.isdigit() or not end for end in ends)
    first, last = ((_time_ns(end, text) if timed else int(end)) if end else None for end in ends)
    if first is not None and last is not None and first > last:
        raise ConfigError(f"{text!r}: the range ends before it begins")
    return Range(first, last, timed)


def _around(part: str, text: str, releases: Sequence[DeployEvent], length_ns: int) -> Range:
    direction, _, title = part.partition(":")
    release = _named(title, text, releases)
    start, end = release.time_ns, _end(release)
    if direction == "before":
        earliest = max((_end(one) for one in releases if one.time_ns < start), default=0)
        found = Range(max(start - length_ns, earliest), start, timed=True)
    else:
        latest = min((one.time_ns for one in releases if one.time_ns > start), default=LAST_NS)
        found = Range(end, min(end + length_ns, latest), timed=True)
    if found.times[0] >= found.times[1]:
        raise ConfigError(f"{text!r}: another release was marked there, so nothing lies {direction} {_said(release)} alone")
    return found


def _named(title: str, text: str, releases: Sequence[DeployEvent]) -> DeployEvent:
    """Return the release called *title*, or the only one whose title has it as a part; letters' case is the same."""
    wanted = " ".join(title.split()).casefold()
    found = [one for one in releases if one.title.casefold() == wanted]
    found = found or [one for one in releases if wanted in one.title.casefold()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{text!r}: {len(found)} releases match {title!r}: {_listed(found)}; say more of the title, or give "
                          "times (@FROM..TO)")  # fmt: skip
    latest = f"the latest: {_listed(releases)}" if releases else "none is marked (headwatch deploy-event)"
    raise ConfigError(f"{text!r}: no release matches {title!r}; {latest}")


def _listed(releases: Sequence[DeployEvent]) -> str:
    return ", ".join(map(_said, releases[-_SHOWN:]))


def _said(release: DeployEvent) -> str:
    return f"{release.title!r} of {datetime.fromtimestamp(release.time_ns / _NS, UTC):%Y-%m-%d %H:%M}"


def _end(release: DeployEvent) -> int:
    return release.time_ns + int(release.planned_seconds * _NS)


def _time_ns(text: str, given: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{given!r}: {text!r} is neither a window number nor a time such as 2026-11-29T14:00") from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * _NS)
