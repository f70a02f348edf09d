"""Windows and data points as columns of the Collector's tables.

Per-head series are built by numpy for a whole window at once: the cells that hold anything become rows, nothing else.
A window of 20,000 rows takes about a quarter of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch import __version__
from headwatch.metrics import (
    ATTR_CONTEXT_BAND,
    ATTR_HEAD,
    ATTR_LAYER,
    ATTR_MODEL,
    ATTR_PHASE,
    ATTR_ROUTE,
    ATTR_STRATUM,
    head_metric,
    metric,
)
from headwatch_exporters.points import HistogramValue, Point, engine_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.metrics import Metric
    from headwatch.records import Stratum, WindowBatch
    from headwatch_exporters.clickhouse.columns import Columns

DELTA, CUMULATIVE = 1, 2
"""OpenTelemetry aggregation temporality."""


def window_columns(window: WindowBatch, service: str) -> Columns:
    """Return the rows of *window* for ``otel_metrics_exp_histogram``: one for each stratum, feature, layer and head seen."""
    cells = np.nonzero(window.count)  # four index arrays [N]: stratum, feature, layer, head
    rows = len(cells[0])
    described = [head_metric(feature) for feature in window.features]
    attributes = [{**_of(stratum), **extra} for stratum in window.strata for _, extra in described]
    common = (cells[0] * len(described) + cells[1]).tolist()
    layers, heads = [str(layer) for layer in window.layers.tolist()], [str(head) for head in range(window.count.shape[3])]
    first, counts = _trim(window.buckets[cells])
    return {
        **_common(
            [engine_source(window.worker).resource(service)] * rows,
            service,
            [described[feature][0] for feature in cells[1].tolist()],
            [
                {**attributes[row], ATTR_LAYER: layers[layer], ATTR_HEAD: heads[head]}
                for row, layer, head in zip(common, cells[2].tolist(), cells[3].tolist(), strict=True)
            ],
        ),
        "StartTimeUnix": [window.start_ns] * rows,
        "TimeUnix": [window.end_ns] * rows,
        "Count": window.weight[cells].tolist(),
        "Sum": window.total[cells].tolist(),
        "Scale": [window.scale] * rows,
        "ZeroCount": window.zero_count[cells].tolist(),
        "PositiveOffset": (first + window.offset).tolist(),
        "PositiveBucketCounts": counts,
        "NegativeOffset": [0] * rows,
        "NegativeBucketCounts": [[]] * rows,
        "Min": window.minimum[cells].tolist(),
        "Max": window.maximum[cells].tolist(),
        "AggregationTemporality": [DELTA] * rows,
    }


def norm_columns(window: WindowBatch, norms: NDArray[np.float32], service: str) -> Columns:
    """Return the rows of *window* for ``otel_metrics_gauge``: the mean norm of the output of each head, *norms* [S, L, H]."""
    cells = np.nonzero(~np.isnan(norms))
    rows = len(cells[0])
    attributes = [_of(stratum) for stratum in window.strata]
    layers = window.layers.tolist()
    return {
        **_common(
            [engine_source(window.worker).resource(service)] * rows,
            service,
            [metric("attention.output_norm")] * rows,
            [
                {**attributes[stratum], ATTR_LAYER: str(layers[layer]), ATTR_HEAD: str(head)}
                for stratum, layer, head in zip(*(axis.tolist() for axis in cells), strict=True)
            ],
        ),
        "StartTimeUnix": [window.start_ns] * rows,
        "TimeUnix": [window.end_ns] * rows,
        "Value": norms[cells].tolist(),
    }


def row_count_columns(window: WindowBatch, service: str) -> Columns:
    """Return the rows of *window* for ``otel_metrics_gauge``: how many rows of each stratum were seen."""
    strata = len(window.strata)
    return {
        **_common(
            [engine_source(window.worker).resource(service)] * strata, service, [metric("attention.rows")] * strata,
            [_of(stratum) for stratum in window.strata],
        ),
        "StartTimeUnix": [window.start_ns] * strata,
        "TimeUnix": [window.end_ns] * strata,
        "Value": window.rows.astype(float).tolist(),
    }  # fmt: skip


def _of(stratum: Stratum) -> dict[str, str]:
    """Return the attributes of a stratum."""
    return {
        ATTR_MODEL: stratum.model, ATTR_STRATUM: stratum.label, ATTR_ROUTE: stratum.route,
        ATTR_PHASE: stratum.phase, ATTR_CONTEXT_BAND: stratum.context_band,
    }  # fmt: skip


def point_columns(points: Sequence[Point], service: str) -> dict[str, Columns]:
    """Return *points* by table."""
    tables: dict[str, Columns] = {}
    for instrument in ("gauge", "sum", "exp_histogram"):
        chosen = [point for point in points if point.metric.instrument == instrument]
        columns: dict[str, Sequence[object]] = {
            **_common(
                [point.source.resource(service) for point in chosen], service,
                [point.metric for point in chosen], [point.attributes for point in chosen],
            ),
            "StartTimeUnix": [point.start_ns for point in chosen],
            "TimeUnix": [point.time_ns for point in chosen],
        }  # fmt: skip
        if instrument == "exp_histogram":
            columns |= _histograms([point.value for point in chosen if isinstance(point.value, HistogramValue)])
        else:
            columns["Value"] = [point.value for point in chosen]
        if instrument == "sum":
            columns |= {"AggregationTemporality": [CUMULATIVE] * len(chosen), "IsMonotonic": [True] * len(chosen)}
        tables[f"otel_metrics_{instrument}"] = columns
    return tables


def _common(
    resources: list[dict[str, str]], service: str, metrics: list[Metric], attributes: list[dict[str, str]]
) -> Columns:
    """Return the columns that every table of the Collector has."""
    rows = len(metrics)
    return {
        "ResourceAttributes": resources,
        "ScopeName": ["headwatch"] * rows,
        "ScopeVersion": [__version__] * rows,
        "ServiceName": [service] * rows,
        "MetricName": [item.name for item in metrics],
        "MetricDescription": [item.description for item in metrics],
        "MetricUnit": [item.unit for item in metrics],
        "Attributes": attributes,
    }


def _histograms(values: list[HistogramValue]) -> Columns:
    trimmed = [value.trimmed() for value in values]
    return {
        "Count": [value.count for value in values],
        "Sum": [value.total for value in values],
        "Scale": [value.scale for value in values],
        "ZeroCount": [value.zero_count for value in values],
        "PositiveOffset": [offset for offset, _ in trimmed],
        "PositiveBucketCounts": [counts for _, counts in trimmed],
        "NegativeOffset": [0] * len(values),
        "NegativeBucketCounts": [[]] * len(values),
        "Min": [value.minimum for value in values],
        "Max": [value.maximum for value in values],
        "AggregationTemporality": [DELTA] * len(values),
    }


def _trim(buckets: NDArray[np.unsignedinteger]) -> tuple[NDArray[np.int64], list[list[int]]]:
    """Return for each row of *buckets* [N, B] the first used bucket, and the counts from there to the last used one."""
    used = buckets > 0
    first = used.argmax(axis=1)
    end = buckets.shape[1] - used[:, ::-1].argmax(axis=1)
    end[~used.any(axis=1)] = 0
    bounds = zip(buckets, first.tolist(), end.tolist(), strict=True)
    return first, [row[low:high].tolist() for row, low, high in bounds]
