"""The seven dashboards, in the order in which an on-call engineer opens them."""

from __future__ import annotations

from headwatch_dashboards.boards import canaries, drift, grounding, heads, health, incident, overview

BOARDS = (
    overview.BOARD, grounding.BOARD, heads.BOARD, drift.BOARD, canaries.BOARD, incident.BOARD, health.BOARD,
)  # fmt: skip
