"""Histograms added up over deliveries.

OpenTelemetry's default temporality is cumulative, and Prometheus understands no other.  It also survives loss: a point that
never arrived is contained in the next one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from headwatch_exporters.points import HistogramValue, Point, Source

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_SERIES = 10_000
"""About 1.2 KiB each."""

_Series = tuple[str, tuple[tuple[str, str], ...], Source]


class CumulativeHistograms:
    """Sums histograms by series.  Not safe from threads."""

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self._max_series = max_series
        self._kept: dict[_Series, Point] = {}

    def add(self, points: Iterable[Point], time_ns: int) -> list[Point]:
        """Return the cumulative point, as of *time_ns*, of each series that *points* touch.

        Where there is no room for a new series the one that was quiet for longest is forgotten; should it return, it
        counts from a new start.
        """
        touched: dict[_Series, None] = {}
        for point in points:
            if not isinstance(point.value, HistogramValue):
                continue
            series = (point.metric.name, tuple(point.attributes.items()), point.source)
            known = self._kept.pop(series, None)
            if known is not None and isinstance(known.value, HistogramValue):
                point = replace(  # noqa: PLW2901 - the running point stands for the series from here on
                    known, value=known.value.merge(point.value), start_ns=min(known.start_ns, point.start_ns),
                    exemplars=point.exemplars or known.exemplars,
                )
            elif len(self._kept) >= self._max_series:
                self._kept.pop(next(iter(self._kept)))
            self._kept[series] = point
            touched[series] = None
        return [replace(self._kept[series], time_ns=time_ns) for series in touched if series in self._kept]
