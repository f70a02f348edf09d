"""Everything of one incident, where a page leads."""

from __future__ import annotations

from headwatch_dashboards import variables
from headwatch_dashboards.board import Board
from headwatch_dashboards.panels import incidents

BOARD = Board(
    slug="incident",
    title="incident",
    description="Everything of one incident: what happened, how sure that is, and what to look at: heads, documents, requests.",
    variables=(variables.incident(),),
    since="now-24h",
    sections=(
        ("What happened", (
            (4, ((incidents.verdict(), 24),)),
            (9, ((incidents.story(), 13), (incidents.reasons(), 11))),
        )),
        ("Where it was seen", (
            (9, ((incidents.evidence_at_opening(), 12), (incidents.evidence_since(), 12))),
        )),
        ("What to look at", (
            (9, ((incidents.heads(), 9), (incidents.documents(), 15))),
            (9, ((incidents.requests(), 24),)),
        )),
    ),
)  # fmt: skip
