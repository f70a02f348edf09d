"""How near is detection to a page, on what evidence, compared with what?"""

from __future__ import annotations

from headwatch_dashboards import variables
from headwatch_dashboards.board import Board
from headwatch_dashboards.panels import drift, incidents

BOARD = Board(
    slug="drift",
    title="drift",
    description="How near is detection to a page, on what evidence, in which strata, compared with which baseline?",
    variables=(variables.route(), variables.model()),
    sections=(
        ("Evidence against its bound", (
            (9, ((drift.detection_state(), 4), (drift.clock_over_time(), 20))),
            (10, ((drift.evidence_over_time(), 24),)),
        )),
        ("Where, and how much", (
            (10, ((drift.effects(), 14), (drift.strata(), 10))),
        )),
        ("Compared with what", (
            (8, ((drift.baselines(), 12), (incidents.precision(), 12))),
        )),
    ),
)  # fmt: skip
