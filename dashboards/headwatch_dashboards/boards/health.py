"""Is capture well, what does it cost, and does what it captured arrive?"""

from __future__ import annotations

from headwatch_dashboards import variables
from headwatch_dashboards.board import Board
from headwatch_dashboards.panels import health, overview

BOARD = Board(
    slug="health",
    title="capture health",
    description="Is capture well, what does it cost, and does what it captured arrive? Nothing here touches vLLM's output.",
    variables=(variables.model(),),
    sections=(
        ("Now", (
            (4, ((overview.capture_up(), 5), (overview.refused_layers(), 5), (overview.report_age(), 5),
                 (health.spool_now(), 9))),
        )),
        ("Capture", (
            (8, ((health.overhead_over_time(), 8), (health.strides(), 8), (health.rows_over_time(), 8))),
        )),
        ("On the way", (
            (8, ((health.frames_lost_over_time(), 8), (health.thinning(), 8), (health.errors_by_reason(), 8))),
        )),
        ("Delivery", (
            (8, ((health.exporters(), 8), (health.exporter_queue_over_time(), 8), (health.spool_over_time(), 8))),
        )),
    ),
)  # fmt: skip
