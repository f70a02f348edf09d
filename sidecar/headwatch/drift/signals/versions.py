"""Which versions of a document have been seen, so that one that is behind can be told.

Versions that are numbers (``7``, ``v2.10``, ``2026-01-31``) are compared as numbers, part by part.  Others are compared by the
time at which they were retrieved, where both have one; else nothing is said.  A version that was never seen cannot be
missed: what everybody serves stale looks fresh.

Cost: up to ``MAX_VERSIONS`` keys for each of ``MAX_DOCUMENTS`` documents, the least recently seen make room.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

MAX_DOCUMENTS = 65_536
MAX_VERSIONS = 8
"""Newest versions kept of a document: a lag is counted up to here."""
_NUMBERS = re.compile(r"^[vV]?(\d{1,18}(?:[._-]\d{1,18}){0,7})$")


class VersionKey(msgspec.Struct, frozen=True, array_like=True, order=True):
    """The place of a version among others of the same document; only keys of one *kind* are compared."""

    kind: str
    """``number`` or ``time``."""
    order: tuple[int, ...]


def seconds_of(moment: str) -> float | None:
    """Return the ISO 8601 time *moment* in seconds since 1970, UTC where it names no zone; None where it is none."""
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return None
    return (parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)).timestamp()


def key_of(version: str, retrieved_at: str) -> VersionKey | None:
    """Return the key of a document's *version*; None where nothing can be said of it."""
    numbers = _NUMBERS.match(version.strip())
    if numbers is not None:
        return VersionKey("number", tuple(int(part) for part in re.split(r"[._-]", numbers.group(1))))
    seconds = seconds_of(retrieved_at) if version else None
    return None if seconds is None else VersionKey("time", (int(seconds),))


class _Version(msgspec.Struct, frozen=True, array_like=True):
    key: VersionKey
    name: str


class VersionBook(msgspec.Struct):
    """Versions by source and id of the document, newest first."""

    known: dict[str, list[_Version]] = {}

    def learn(self, source: str, identity: str, version: str, retrieved_at: str) -> None:
        """Note that a document was seen in a version."""
        key = key_of(version, retrieved_at)
        if key is None:
            return
        name = _name(source, identity)
        versions = self.known.pop(name, [])
        self.known[name] = versions  # to the end: the least recently seen come first
        while len(self.known) > MAX_DOCUMENTS:
            del self.known[next(iter(self.known))]
        if all(seen.name != version for seen in versions):
            versions.append(_Version(key, version))
            versions.sort(key=lambda seen: seen.key, reverse=True)
            del versions[MAX_VERSIONS:]

    def lag(self, source: str, identity: str, version: str, retrieved_at: str) -> int | None:
        """Return how many newer versions of a document have been seen; None where its version cannot be compared."""
        key = key_of(version, retrieved_at)
        if key is None:
            return None
        versions = self.known.get(_name(source, identity), [])
        mine = next((seen.key for seen in versions if seen.name == version), key)  # as it was first seen
        return sum(seen.key.kind == mine.kind and seen.key.order > mine.order for seen in versions)


def _name(source: str, identity: str) -> str:
    return f"{source}\x1f{identity}"
