"""Data points: merging loses nothing, bands are exact, totals count each delivery once, everything is bounded."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch import __version__
from headwatch.errors import ExportError
from headwatch.metrics import (
    ATTR_LAYER_BAND,
    ATTR_MODEL,
    ATTR_PHASE,
    ATTR_RANK,
    ATTR_REASON,
    ATTR_STATE,
    METRICS,
    metric,
)
from headwatch.model import WINDOW_FEATURES
from headwatch_exporters.cumulative import CumulativeHistograms
from headwatch_exporters.grounding import Grounding
from headwatch_exporters.label_limit import OTHER, LabelLimit
from headwatch_exporters.layer_bands import band_points, layer_bands, norm_points
from headwatch_exporters.memory import MemoryExporter
from headwatch_exporters.overhead import Overhead
from headwatch_exporters.points import HistogramValue, Point, Source, histogram_of, sidecar_source
from headwatch_exporters.totals import SILENT_NS, Totals

from ..contract.deliveries import (
    DOCUMENT_SHARES,
    FIXED_NS,
    RATIOS,
    RETRIEVAL_RATIOS,
    carried,
    empty,
    full,
    undefined,
    wide,
)
from ..traffic import health
from .frames import HEADS, LAYERS, worker

shares = st.lists(st.floats(0.0, 1.0, width=32), min_size=1, max_size=20)


def same(one: HistogramValue, other: HistogramValue) -> bool:
    """Compare all but the sum, which depends on the order of its terms in the last digits."""
    assert one.total == pytest.approx(other.total)
    return (one.count, one.minimum, one.maximum, one.zero_count) == (
        other.count, other.minimum, other.maximum, other.zero_count,
    ) and np.array_equal(one.buckets, other.buckets)  # fmt: skip


def by_name(points: list[Point], name: str) -> list[Point]:
    return [point for point in points if point.metric.name == f"headwatch.{name}"]


@given(shares, shares)
def test_merging_is_the_histogram_of_both(left: list[float], right: list[float]):
    """Whatever is merged, in whatever order, is what one would have counted at once."""
    merged = histogram_of(left).merge(histogram_of(right))
    assert same(merged, histogram_of(left + right))
    assert same(merged, histogram_of(right).merge(histogram_of(left)))
    assert merged.zero_count + int(merged.buckets.sum()) == merged.count == len(left) + len(right)


def test_merging_changes_neither_side():
    one, other = histogram_of([0.25]), histogram_of([0.5])
    one.merge(other)
    assert (one.count, int(one.buckets.sum()), other.count) == (1, 1, 1)


def test_histograms_with_other_buckets_are_refused():
    with pytest.raises(ValueError, match="scale 3, offset -128, 128 buckets and with scale 4"):
        histogram_of([0.5]).merge(replace(histogram_of([0.5]), scale=4))


@pytest.mark.parametrize(
    ("layers", "bands", "expected"),
    [
        (30, 4, ["0-7", "8-14", "15-21", "22-29"]),
        (2, 4, ["0-0", "1-1"]),
        (5, 1, ["0-4"]),
        (0, 4, []),
    ],
)
def test_bands_cover_every_layer_once(layers: int, bands: int, expected: list[str]):
    found = layer_bands(layers, bands)
    assert [name for name, _ in found] == expected
    assert [layer for _, part in found for layer in range(layers)[part]] == list(range(layers))


@pytest.mark.parametrize("bands", [1, 3, 40])
def test_bands_lose_no_observation(bands: int):
    """Over all bands each feature has the count, sum, range and buckets of the window."""
    (window,) = wide().windows
    points = list(band_points(window, bands))
    assert len(points) == bands * len(window.features)
    for number, feature in enumerate(window.features):
        values = [
            point.value for point in points
            if point.metric.name == f"headwatch.attention.{feature}" and isinstance(point.value, HistogramValue)
        ] if not feature.startswith("span_mass.") else []  # fmt: skip
        if not values:
            continue
        assert sum(value.count for value in values) == window.count[:, number].sum()
        assert sum(value.total for value in values) == pytest.approx(window.total[:, number].sum())
        assert min(value.minimum for value in values) == window.minimum[:, number].min()
        assert max(value.maximum for value in values) == window.maximum[:, number].max()
        assert np.array_equal(sum(value.buckets for value in values), window.buckets[:, number].sum((0, 1, 2)))


def test_bands_carry_phase_and_what_is_undefined_has_no_point():
    """Rows of the prompt define no lookback: there is no such point, not one of count 0."""
    (window,) = full().windows
    points = by_name(list(band_points(window, 1)), "attention.lookback")
    assert [(point.attributes[ATTR_PHASE], point.attributes[ATTR_LAYER_BAND]) for point in points] == [("decode", "0-1")]
    (point,) = points
    assert isinstance(point.value, HistogramValue)
    assert (point.value.count, point.value.total) == (3 * LAYERS * HEADS, pytest.approx(LAYERS * HEADS * sum(RATIOS)))
    assert (point.start_ns, point.time_ns, point.source) == (window.start_ns, window.end_ns, Source("engine-1", "0.32.0"))


def test_strata_that_the_attributes_cannot_tell_apart_are_one_series():
    """Two adapters of one route are merged; two routes that share a name are as well."""
    (window,) = wide().windows
    two = replace(
        window,
        strata=(window.strata[0], replace(window.strata[0], adapter="lora", route="sales")),
        **{name: np.concatenate([getattr(window, name)] * 2) for name in ("count", "weight", "total", "minimum", "maximum")},
        **{name: np.concatenate([getattr(window, name)] * 2) for name in ("zero_count", "buckets", "rows")},
    )
    once, apart = list(band_points(window, 2)), list(band_points(two, 2))
    together = list(band_points(two, 2, lambda _: "any"))
    assert len(apart) == 2 * len(once) == 2 * len(together)
    for one, both in zip(once, together, strict=True):
        assert isinstance(one.value, HistogramValue)
        assert isinstance(both.value, HistogramValue)
        assert same(both.value, one.value.merge(one.value))


def test_grounding_is_what_the_requests_measured():
    points = Grounding().points(full())
    ratios = {point.attributes["headwatch.heads"]: point.value for point in by_name(points, "grounding.ratio")}
    for heads, expected in (("all", RATIOS), ("retrieval", RETRIEVAL_RATIOS)):
        value = ratios[heads]
        assert isinstance(value, HistogramValue)
        assert (value.count, value.total) == (3, pytest.approx(sum(expected)))
    (share,) = by_name(points, "grounding.document_share")
    assert isinstance(share.value, HistogramValue)
    assert (share.value.count, share.value.maximum) == (6, pytest.approx(max(DOCUMENT_SHARES)))


def test_a_request_without_a_ratio_has_no_point():
    assert Grounding().points(undefined()) == []


def test_totals_count_a_delivery_once():
    """Given again it is the same delivery; a later one adds up.  The start never moves."""
    totals = Totals()
    first = totals.points(full())
    again = totals.points(full())
    later = totals.points(full(FIXED_NS + 1_000_000_000))
    counts = [by_name(points, "grounding.requests")[0] for points in (first, again, later)]
    assert [point.value for point in counts] == [3.0, 3.0, 6.0]
    assert {point.start_ns for point in counts} == {FIXED_NS}


def test_totals_of_a_pair_that_nobody_has_heard_of():
    assert Totals().points(empty()) == []


def test_totals_tell_states_apart():
    points = by_name(Totals().points(undefined()), "grounding.requests")
    assert {point.attributes[ATTR_STATE]: point.value for point in points} == {"absent": 1.0, "unresolved": 2.0}


def test_a_worker_speaks_under_its_engine_since_its_own_start():
    """The counts of a worker start with it, so that a reader sees a restart; those of the sidecar are its own."""
    points = Totals().points(full())
    (up,) = by_name(points, "capture.up")
    assert (up.value, up.attributes) == (1.0, {ATTR_MODEL: "model", ATTR_RANK: "0"})
    assert (up.source, up.start_ns) == (Source("engine-1", "0.32.0"), FIXED_NS - 60_000_000_000)
    (rejected,) = by_name(points, "ingest.rejected")
    assert (rejected.value, rejected.attributes, rejected.source) == (1.0, {ATTR_REASON: "magic"}, sidecar_source())
    assert rejected.source.version == __version__


def test_a_worker_that_went_silent_is_down():
    (up,) = by_name(Totals().points(replace(full(), time_ns=FIXED_NS + SILENT_NS)), "capture.up")
    assert up.value == 0.0


def test_every_point_keeps_to_the_table_of_metrics():
    """Name and attributes are those that metrics.py promises; a band stands where the table has a layer and a head."""
    points = [*Totals().points(full()), *Grounding().points(full())]
    for point in points:
        assert point.metric in METRICS
        assert set(point.attributes) == set(point.metric.attributes)


def test_cumulative_histograms_contain_what_came_before():
    kept = CumulativeHistograms()
    first = Point(metric("grounding.ratio"), {}, 10, 20, histogram_of([0.2]), Source("a", "1"))
    second = replace(first, start_ns=20, time_ns=30, value=histogram_of([0.4]))
    kept.add([first], 20)
    (point,) = kept.add([second], 31)
    assert isinstance(point.value, HistogramValue)
    assert same(point.value, histogram_of([0.2, 0.4]))
    assert (point.start_ns, point.time_ns) == (10, 31)
    assert kept.add([], 40) == [], "what was not touched is not sent again"


def test_cumulative_histograms_of_two_engines_stay_apart():
    kept = CumulativeHistograms()
    one = Point(metric("grounding.ratio"), {}, 10, 20, histogram_of([0.2]), Source("a", "1"))
    assert len(kept.add([one, replace(one, source=Source("b", "1"))], 20)) == 2


def test_the_quietest_series_makes_room():
    kept = CumulativeHistograms(max_series=2)
    points = [
        Point(metric("grounding.ratio"), {"route": name}, 10, 20, histogram_of([0.2]), Source("a", "1")) for name in "xyz"
    ]
    kept.add(points[:2], 20)
    kept.add([points[0]], 21)
    kept.add([points[2]], 22)
    counts = {point.attributes["route"]: point.value.count for point in kept.add([points[0]], 23)}  # type: ignore[union-attr]
    assert counts == {"x": 3}
    (returned,) = kept.add([points[1]], 24)
    assert isinstance(returned.value, HistogramValue)
    assert returned.value.count == 1, "it was forgotten, and counts from a new start"


def test_values_that_clients_choose_are_bounded():
    limit = LabelLimit(2)
    assert [limit(value) for value in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]


def test_the_memory_exporter_is_bounded_and_ends():
    exporter = MemoryExporter(limit=2)
    counts = [exporter.export(full(FIXED_NS + number)) for number in (0, 1, 1, 2)]
    assert counts[2] == 0
    assert [delivery.time_ns - FIXED_NS for delivery in exporter.deliveries] == [1, 2]
    exporter.close()
    with pytest.raises(ExportError, match="closed"):
        exporter.export(full())
    assert len(exporter.deliveries) == 2


def test_bands_have_the_shares_of_what_heads_move_and_the_mean_norm_of_their_outputs():
    """Every head moves three quarters from documents and a quarter from generated text, with a norm of 3."""
    (window,) = carried().windows
    shares = {
        point.attributes["headwatch.span.kind"]: point.value.total / point.value.count  # type: ignore[union-attr]
        for point in by_name(list(band_points(window, 1)), "attention.value_share")
    }
    assert shares == pytest.approx({"system": 0.0, "user": 0.0, "document": 0.75, "generated": 0.25})
    norms = list(norm_points(window, 2, lambda _: "somewhere"))
    assert [(point.metric.name, point.attributes[ATTR_LAYER_BAND], point.value) for point in norms] == [
        ("headwatch.attention.output_norm", "0-0", 3.0), ("headwatch.attention.output_norm", "1-1", 3.0),
    ]  # fmt: skip
    assert {point.attributes["headwatch.route"] for point in norms} == {"somewhere"}


def test_a_norm_that_no_row_carried_makes_no_point():
    (plain,) = full().windows
    assert list(norm_points(plain, 2)) == []
    (window,) = carried().windows
    assert window.output_norm is not None
    window.output_norm[:, 1] = np.nan
    assert [point.attributes[ATTR_LAYER_BAND] for point in norm_points(window, 2)] == ["0-0"]


def test_rows_that_got_less_detail_and_rows_without_room_are_counted_by_reason():
    status = msgspec.structs.replace(health(FIXED_NS, worker()).workers[0].status, counters={"detail_reduced.full_bytes": 3})
    state = replace(health(FIXED_NS, worker()), ingest={"frames": 1, "evidence_rows": 5, "evidence_dropped.waiting_bytes": 2})
    state = replace(state, workers=(replace(state.workers[0], status=status),))
    points = Totals().points(replace(empty(), health=state))
    found = {point.metric.name: (point.value, point.attributes.get(ATTR_REASON)) for point in points}
    assert found["headwatch.capture.detail_reduced"] == (3.0, "full_bytes")
    assert found["headwatch.ingest.evidence_rows"] == (5.0, None)
    assert found["headwatch.ingest.evidence_dropped"] == (2.0, "waiting_bytes")


def test_rows_of_canaries_are_counted_apart_from_those_of_traffic():
    state = replace(health(FIXED_NS, worker()), ingest={"frames": 1, "rows": 9, "canary_rows": 56, "canary_rows_dropped": 3})
    points = Totals().points(replace(empty(), health=state))
    assert [point.value for point in by_name(points, "ingest.canary_rows")] == [56.0]
    assert [point.value for point in by_name(points, "ingest.canary_dropped")] == [3.0]


def test_the_features_of_a_window_all_have_a_metric():
    (window,) = full().windows
    assert window.features == WINDOW_FEATURES
    assert window.worker.instance == worker().instance


def test_overhead_is_that_of_late_and_starts_anew_with_the_worker():
    overhead = Overhead()

    def report(capture: float, step: float, start_ns: int = 1) -> float:
        status = health(0, worker()).workers[0].status
        return overhead(msgspec.structs.replace(
            status, capture_seconds=capture, step_seconds=step, worker=msgspec.structs.replace(status.worker, start_ns=start_ns)
        ))

    assert report(0.0, 0.0) == 0.0
    assert report(1.0, 100.0) == pytest.approx(0.01)
    assert report(6.0, 200.0) == pytest.approx(0.05), "not 0.03, the mean since the start"
    assert report(6.0, 200.0) == pytest.approx(0.05), "a report that comes twice says the same"
    assert report(6.001, 200.1) == pytest.approx(0.05), "a tenth of a second is too little to judge"
    assert report(0.5, 5.0, start_ns=2) == pytest.approx(0.1)
