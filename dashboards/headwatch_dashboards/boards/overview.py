"""What is wrong now, where, and since when?"""

from __future__ import annotations

from headwatch_dashboards import variables
from headwatch_dashboards.board import Board
from headwatch_dashboards.panels import drift, grounding, incidents, overview

BOARD = Board(
    slug="overview",
    title="overview",
    description="What is wrong now, where, and since when? Attention is evidence, not proof.",
    variables=(variables.route(), variables.model()),
    sections=(
        ("Now", (
            (5, (
                (overview.live_incidents(), 7),
                (drift.detection_state(), 4),
                (overview.capture_up(), 3),
                (overview.report_age(), 3),
                (overview.request_count(), 3),
                (overview.refused_layers(), 4),
            )),
            (9, ((incidents.incidents(), 24),)),
        )),
        ("Where", (
            (9, ((overview.routes(), 12), (drift.clock_over_time(), 12))),
            (10, ((grounding.grounding_over_time(), 12), (grounding.states_over_time(), 12))),
        )),
        ("What changed, and was the page right?", (
            (8, ((incidents.releases(), 12), (incidents.precision(), 12))),
        )),
    ),
)  # fmt: skip
