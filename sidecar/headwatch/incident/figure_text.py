"""A figure in the words that a person reads: shares as per cent, ages as days, the rest with three digits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwatch.findings import Evidence

_SHARES = (
    "documents_absent", "documents_unresolved", "document_mass", "document_mass_retrieval", "top_document_share",
    "stale_mass", "history_mass", "unread_share", "unreliable_mass", "forbidden_mass", "other_tenant_mass",
    "instruction_focus", "frames_missing_share", "rows_dropped_share", "rows_refused_share", "sample_rate",
    "capture_up", "document_wholeness",
)  # fmt: skip
_SHARE_PREFIXES = (
    "source_presence.", "source_share.", "rank_", "language:", "band:", "route:", "template:", "model:", "adapter:",
    "template_version:",
)  # fmt: skip
_TINY = 0.001


def figure(name: str, value: float) -> str:
    """Return *value* of the figure *name* for a reader."""
    if math.isnan(value):
        return "unknown"
    if name == "capture_by_document":  # log2 of a ratio
        return f"{2.0**value:.2g} x"
    if name in _SHARES or name.startswith(_SHARE_PREFIXES):
        return percent(value)
    if value and abs(value) < _TINY:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004 - three digits are enough below


def percent(share: float) -> str:
    """Return *share* as per cent, with a digit after the point where it is small."""
    return f"{share:.1%}" if abs(share) < 0.0995 else f"{share:.0%}"  # noqa: PLR2004 - below ten per cent


def effect_text(effect: float) -> str:
    """Return an effect in standard deviations; beyond a hundred nobody wants the digits (a stream that never moved, moved)."""
    if abs(effect) >= 100:  # noqa: PLR2004 - see above
        return f"{'>' if effect > 0 else '<'}{99 if effect > 0 else -99:+d} sd"
    return f"{effect:+.1f} sd"


def place(one: Evidence) -> str:
    """Return where the evidence is: its stratum or scope without the model and without what is empty, else its route."""
    return "|".join(part for part in one.stratum.split("|")[1:] if part) or one.route
