"""An exporter that keeps deliveries in this process: for tests, and to look at a pipeline without any peer."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from headwatch.errors import ExportError

if TYPE_CHECKING:
    from headwatch.records import Delivery

MAX_DELIVERIES = 256


class MemoryExporter:
    """Keeps the latest *limit* deliveries, newest last."""

    name = "memory"

    def __init__(self, limit: int = MAX_DELIVERIES) -> None:
        self.deliveries: deque[Delivery] = deque(maxlen=limit)
        self.closed = False

    def export(self, delivery: Delivery) -> int:
        """Keep *delivery* and return how many histograms and requests it carries; one that is kept already counts 0.

        Raises:
            ExportError: The exporter was closed.
        """
        if self.closed:
            raise ExportError("the memory exporter is closed")
        if any(kept.time_ns == delivery.time_ns for kept in self.deliveries):
            return 0
        self.deliveries.append(delivery)
        return sum(int((window.count > 0).sum()) for window in delivery.windows) + len(delivery.requests)

    def close(self) -> None:
        """Take no more; what was kept stays readable."""
        self.closed = True
