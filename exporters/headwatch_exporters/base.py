"""The seam between the pipeline and whatever keeps or shows its results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from headwatch.records import Delivery


class Exporter(Protocol):
    """Takes what the pipeline delivers.  Each runs on a thread of its own behind a bounded queue, so it may block."""

    @property
    def name(self) -> str:
        """Return the word that labels this exporter's own metrics: ``clickhouse``, ``otlp``, ``prometheus``."""
        ...

    def export(self, delivery: Delivery) -> int:
        """Deliver, and return the number of data points or rows that were delivered.

        Raises:
            ExportError: The peer cannot be reached or refuses; the pipeline retries, then drops and counts.
        """
        ...

    def close(self) -> None:
        """Release connections.  Called once; :meth:`export` is not called afterwards."""
        ...
