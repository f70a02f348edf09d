"""Where the ways out of a spool stand, and what is told of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from headwatch_exporters.spool.record import Record
    from headwatch_exporters.spool.segment import Frame, Segment

LaneName = Literal["live", "backlog"]


@dataclass(frozen=True, slots=True)
class Taken:
    """A record that is being sent."""

    segment: Segment
    frame: Frame
    record: Record


@dataclass(frozen=True, slots=True)
class Figures:
    """Where a spool stood when something was last done to it."""

    waiting: int
    disk_bytes: int
    oldest_ns: int


class Lane:
    """Where one of the two ways out stands."""

    def __init__(self, name: LaneName, segment: Segment, offset: int) -> None:
        self.name = name
        self.segment = segment
        self.offset = offset
        self.current: tuple[Segment, Frame] | None = None
        """The record that was tried and is not done."""
