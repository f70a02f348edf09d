"""Which heads read, which moved, and what were they like before?"""

from __future__ import annotations

from headwatch_dashboards import variables
from headwatch_dashboards.board import Board
from headwatch_dashboards.panels import heads, incidents

BOARD = Board(
    slug="heads",
    title="heads",
    description="Which heads read documents, which moved, and what were they like before? Choose one model.",
    variables=(variables.route(), variables.model(), variables.phase(), variables.feature()),
    since="now-1h",
    sections=(
        ("Heads that moved", (
            (10, ((heads.worst_heads(), 12), (incidents.named_heads(), 12))),
        )),
        ("Before and after", (
            (14, ((heads.feature_before(), 12), (heads.feature_after(), 12))),
            (9, ((heads.feature_by_layer(), 24),)),
        )),
        ("Grounding", (
            (14, ((heads.head_grounding(), 24),)),
        )),
    ),
)  # fmt: skip
