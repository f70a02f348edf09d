"""Windows with the heads of neighbouring layers merged: few series, and still exact.

All histograms of a window share their buckets, so merging is addition and loses nothing but the names of the heads.
Strata that differ only in revision or adapter are merged as well, because those are no attributes of the bands.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from headwatch.metrics import (
    ATTR_CONTEXT_BAND,
    ATTR_LAYER_BAND,
    ATTR_MODEL,
    ATTR_PHASE,
    ATTR_ROUTE,
    head_metric,
    metric,
)
from headwatch_exporters.points import HistogramValue, Point, engine_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwatch.records import WindowBatch


def layer_bands(layers: int, bands: int) -> list[tuple[str, slice]]:
    """Return at most *bands* runs of layers of about equal size, named by their first and last layer."""
    if not layers:
        return []
    edges = np.linspace(0, layers, min(bands, layers) + 1).round().astype(int).tolist()
    return [(f"{low}-{high - 1}", slice(low, high)) for low, high in pairwise(edges)]


def band_points(window: WindowBatch, bands: int, route: Callable[[str], str] = str) -> Iterator[Point]:
    """Yield the histograms of *window* for each of *bands* layer bands; *route* may rename routes."""
    source = engine_source(window.worker)
    for attributes, places, layers in _bands(window, bands, route):
        for feature, value in zip(window.features, _merged(window, places, layers), strict=True):
            if value is not None:
                item, extra = head_metric(feature)
                yield Point(item, {**attributes, **extra}, window.start_ns, window.end_ns, value, source)


def norm_points(window: WindowBatch, bands: int, route: Callable[[str], str] = str) -> Iterator[Point]:
    """Yield the mean norm of the heads' outputs of *window* for each layer band, where it was measured.

    Heads and strata count alike, however many rows each has.
    """
    if window.output_norm is None:
        return
    source = engine_source(window.worker)
    for attributes, places, layers in _bands(window, bands, route):
        norms = window.output_norm[places][:, layers]
        if not np.isnan(norms).all():
            value = float(np.nanmean(norms, dtype=np.float64))
            yield Point(metric("attention.output_norm"), attributes, window.start_ns, window.end_ns, value, source)


def _bands(
    window: WindowBatch, bands: int, route: Callable[[str], str]
) -> Iterator[tuple[dict[str, str], list[int], slice]]:
    """Yield the attributes of each series of bands, the places of its strata in *window*, and its layers."""
    groups: dict[tuple[str, str, str, str], list[int]] = {}
    for place, stratum in enumerate(window.strata):
        key = (stratum.model, route(stratum.route), stratum.phase, stratum.context_band)
        groups.setdefault(key, []).append(place)
    for (model, route_name, phase, context_band), places in groups.items():
        for band, layers in layer_bands(len(window.layers), bands):
            attributes = {
                ATTR_MODEL: model, ATTR_ROUTE: route_name, ATTR_PHASE: phase, ATTR_CONTEXT_BAND: context_band,
                ATTR_LAYER_BAND: band,
            }  # fmt: skip
            yield attributes, places, layers


def _merged(window: WindowBatch, places: list[int], layers: slice) -> list[HistogramValue | None]:
    """Return for each feature the histogram over the strata *places* and the heads of *layers*; None where it is empty."""
    axes = (0, 2, 3)  # strata, layers, heads; the features stay
    count = window.weight[places][:, :, layers].sum(axes, dtype=np.uint64)
    total = window.total[places][:, :, layers].sum(axes)
    minimum = np.fmin.reduce(window.minimum[places][:, :, layers], axis=axes)
    maximum = np.fmax.reduce(window.maximum[places][:, :, layers], axis=axes)
    zero_count = window.zero_count[places][:, :, layers].sum(axes, dtype=np.uint64)
    buckets = sum(window.buckets[place][:, layers].sum((1, 2), dtype=np.uint64) for place in places)
    assert isinstance(buckets, np.ndarray)  # [F, B]; there is at least one place
    return [
        HistogramValue(
            int(count[feature]), float(total[feature]), float(minimum[feature]), float(maximum[feature]),
            int(zero_count[feature]), buckets[feature], window.scale, window.offset,
        )
        if count[feature] else None
        for feature in range(len(window.features))
    ]  # fmt: skip
