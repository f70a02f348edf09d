"""The nouns of what is kept: a version of a baseline, and what one window changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Origin = Literal["learned", "pinned", "imported"]
NONE = 0
"""The version that is in force where none is: after a change that was accepted, until a baseline was learned anew."""


@dataclass(frozen=True, slots=True)
class BaselineEntry:
    """One version, without its parts."""

    version: int
    origin: Origin
    created_ns: int
    first_window: int
    last_window: int
    windows: int
    """Windows that it learned from: those in between that were not missing and under no suspicion."""
    note: str
    facts: dict[str, Any]
    """Plain values that belong to it: what traffic and telemetry were like."""
    in_force: bool


@dataclass(frozen=True, slots=True)
class NewBaseline:
    """A version to be kept."""

    origin: Origin
    created_ns: int
    first_window: int
    last_window: int
    windows: int
    parts: dict[str, bytes]
    note: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changes:
    """What one window changes, kept whole or not at all."""

    window: int
    promotion: int
    """What was in force for it, as :meth:`Keeper.in_force` says."""
    version: int
    facts: dict[str, Any]
    states: Mapping[str, bytes]
    """Of every part that has a state; others are forgotten."""
    suspect: Mapping[int, str] = field(default_factory=dict)
    """Windows that no baseline may learn from, and why."""
    newcomers: Mapping[str, tuple[int, bytes]] = field(default_factory=dict)
    """Parts that join the version in force: their order (1, 2, …) and content."""
    baseline: NewBaseline | None = None
    """A version that was learned."""
    promote: bool = False
    """Whether *baseline* is put in force (without one: that none is)."""
