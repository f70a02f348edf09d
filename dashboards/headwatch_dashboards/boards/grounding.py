"""Does the model read the documents that retrieval gave it, and which?"""

from __future__ import annotations

from headwatch_dashboards import variables
from headwatch_dashboards.board import Board
from headwatch_dashboards.panels import grounding, overview

BOARD = Board(
    slug="grounding",
    title="grounding",
    description="Does the model read the documents that retrieval gave it, and which? By route, source, age and rank.",
    variables=(variables.route(), variables.model()),
    sections=(
        ("What this rests on", (
            (4, ((overview.request_count(), 5), (overview.state_shares(), 11), (overview.mean_grounding(), 8))),
        )),
        ("By route", (
            (10, ((grounding.grounding_over_time(), 16), (grounding.states_over_time(), 8))),
        )),
        ("By document", (
            (9, ((grounding.document_share(), 12), (grounding.preference_over_time(), 12))),
            (9, ((grounding.share_by_rank(), 12), (grounding.share_by_age(), 12))),
        )),
        ("Where to start reading", (
            (10, ((grounding.least_grounded_requests(), 24),)),
        )),
    ),
)  # fmt: skip
