"""Data points: what OTLP, the Collector's tables and the Prometheus exposition have in common."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch import __version__
from headwatch.aggregate.histogram import OFFSET, SCALE, HistogramBlock

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.metrics import Metric
    from headwatch.model import WorkerIdentity


@dataclass(frozen=True, slots=True)
class Source:
    """Which process a point describes: ``service.instance.id`` and ``service.version``.

    Two engines behind one sidecar have the same attributes and differ in their source alone.
    """

    instance: str
    version: str

    def resource(self, service: str) -> dict[str, str]:
        """Return the OpenTelemetry resource attributes."""
        return {"service.name": service, "service.instance.id": self.instance, "service.version": self.version}


def engine_source(worker: WorkerIdentity) -> Source:
    """Return the source of what is measured in an engine; its ranks share it."""
    return Source(worker.instance, worker.engine_version)


def sidecar_source() -> Source:
    """Return the source of what this process says of itself.  It never changes in a process's life."""
    return Source(f"{platform.node()}-headwatch", __version__)


@dataclass(frozen=True, slots=True)
class HistogramValue:
    """One exponential histogram; its buckets are those of :mod:`headwatch.aggregate.histogram` unless it says otherwise."""

    count: int
    """How many values it stands for: the sum of the weights of those that were seen."""
    total: float
    """Their weighted sum, so that ``total / count`` is the mean."""
    minimum: float
    maximum: float
    zero_count: int
    buckets: NDArray[np.uint64]  # [B]
    scale: int = SCALE
    offset: int = OFFSET

    def trimmed(self) -> tuple[int, list[int]]:
        """Return the index of the first bucket in use, and the counts from there to the last one in use."""
        used = np.flatnonzero(self.buckets)
        if not len(used):
            return self.offset, []
        return self.offset + int(used[0]), self.buckets[used[0] : used[-1] + 1].tolist()

    def merge(self, other: HistogramValue) -> HistogramValue:
        """Return the histogram of the observations of both; neither is changed.

        Raises:
            ValueError: They have different buckets.
        """
        if (self.scale, self.offset, self.buckets.shape) != (other.scale, other.offset, other.buckets.shape):
            raise ValueError(
                f"histograms with scale {self.scale}, offset {self.offset}, {len(self.buckets)} buckets and with scale "
                f"{other.scale}, offset {other.offset}, {len(other.buckets)} buckets cannot be merged"
            )
        return HistogramValue(
            count=self.count + other.count,
            total=self.total + other.total,
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
            zero_count=self.zero_count + other.zero_count,
            buckets=self.buckets + other.buckets,
            scale=self.scale,
            offset=self.offset,
        )


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One value of a histogram and the caller's trace that it came from."""

    value: float
    time_ns: int
    trace_id: int
    span_id: int


@dataclass(frozen=True, slots=True)
class Point:
    """One data point.  Sums are cumulative since ``start_ns``; a histogram is of ``(start_ns, time_ns]`` alone."""

    metric: Metric
    attributes: dict[str, str]
    start_ns: int
    time_ns: int
    value: float | HistogramValue
    source: Source
    exemplars: tuple[Exemplar, ...] = ()


def histogram_of(values: list[float], weights: list[int] | None = None) -> HistogramValue:
    """Return the histogram of *values*, of which there is at least one; each counts once, or as often as *weights* says."""
    block = HistogramBlock(1)
    block.observe(np.array(values, np.float32)[:, None], np.array(weights or [1] * len(values), np.int64))
    return HistogramValue(
        count=int(block.weight[0]),
        total=float(block.total[0]),
        minimum=float(block.minimum[0]),
        maximum=float(block.maximum[0]),
        zero_count=int(block.zero_count[0]),
        buckets=block.buckets[0].astype(np.uint64),
    )
