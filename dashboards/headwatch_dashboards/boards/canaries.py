"""Do fixed prompts still make the heads look where they did?"""

from __future__ import annotations

from headwatch_dashboards.board import Board
from headwatch_dashboards.panels import drift, incidents

BOARD = Board(
    slug="canaries",
    title="canaries",
    description="Do fixed prompts still make the heads look where they did? What moves here is the model, not the traffic.",
    variables=(),
    since="now-24h",
    sections=(
        ("Deviation", (
            (10, ((drift.canary_deviation(), 24),)),
            (8, ((drift.canary_layers(), 24),)),
        )),
        ("Runs and releases", (
            (9, ((drift.canary_runs(), 14), (incidents.releases(), 10))),
        )),
        ("Compared with what", (
            (7, ((drift.fingerprints(), 24),)),
        )),
    ),
)  # fmt: skip
