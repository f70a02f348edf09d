"""Whether a document or a tool's result draws the mass that the instructions normally hold: the sign of an injection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.drift.signals.definition import SignalDefinition

if TYPE_CHECKING:
    from headwatch.drift.signals.read import ReadRequest

DEFINITIONS = (
    SignalDefinition(
        "instruction_focus", 0.01, -1, "1",
        "Mass on system and user text over mass on system, user, document and tool, at the last row of the prompt, averaged "
        "over the calibrated heads (all heads where none are calibrated); of requests that have a document or a tool's result.",
        "An injection from longer documents, which lower it as well, or from a page that tells its reader what to do, such as "
        "one that asks to sign in. Calibrated heads are those that read documents, not those that the paper selects.",
        "Attention Tracker, arXiv 2411.00348", banded=True,
    ),
)


def values(request: ReadRequest) -> dict[str, float]:
    """Return the signals that *request* defines."""
    focus = request.reading.instruction_focus if request.reading is not None else None
    return {} if focus is None else {"instruction_focus": focus}
