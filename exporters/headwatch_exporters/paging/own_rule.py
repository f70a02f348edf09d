"""A peer that pages by a rule of its own: it reads the incident where it is exported, and nothing is sent to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch_exporters.paging.page import Page


class OwnRule:
    """Stands for Grafana, whose rule reads the store, or for Prometheus, whose rule reads the scrape."""

    refresh_seconds = 0.0

    def __init__(self, name: str) -> None:
        self.name = name

    def send(self, page: Page) -> None:
        """Do nothing."""

    def refresh(self, pages: Sequence[Page]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
