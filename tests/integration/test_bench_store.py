"""The benchmarks of the store, small: what they promise to say is said, and every query has an answer."""

from __future__ import annotations

import pytest

from headwatch.bench import query, query_data, store

pytestmark = pytest.mark.store


def test_bench_store_measures_what_it_promises(monkeypatch: pytest.MonkeyPatch):
    """A small run: figures are there, and bars are those of the parts."""
    monkeypatch.setattr(store, "HEADS", {True: (2, 4)})
    monkeypatch.setattr(store, "MINUTES", 20)
    monkeypatch.setattr(store, "FULL_SIZE", (2, 4))
    monkeypatch.setattr(store, "REQUESTS", {True: 10})
    report = store.run(quick=True)
    assert set(report.bars) == set(store.BOUNDS) == set(report.bounds)
    parts = {part.table: part for part in report.parts}
    assert parts["headwatch_heads_1m"].bytes_per_unit == pytest.approx(report.bars["bytes_per_head_window"], rel=0.01)
    assert parts["otel_metrics_exp_histogram"].bytes_per_unit > parts["headwatch_heads_1m"].bytes_per_unit
    assert report.mib_per_replica_day == pytest.approx(sum(part.mib_per_day for part in report.parts), abs=1)
    assert report.rows_per_second > 0
    assert report.bars["bytes_per_head_summary"] < 16
    assert "rollup_overhead_ratio" in store.render(report)


def test_bench_query_asks_at_least_twenty_and_each_has_an_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(query, "REPLICAS", {True: 5})
    monkeypatch.setattr(query, "REPEATS", {True: 2})
    monkeypatch.setattr(query_data, "LAYERS", 8)
    monkeypatch.setattr(query_data, "HEADS", 4)
    monkeypatch.setattr(query_data, "REQUESTS_WITH_HEADS", 50)
    report = query.run(quick=True)
    assert report.bars["queries"] == len(report.queries) >= 20
    assert report.bars["warm_p95_seconds_max"] == max(one.warm_p95_seconds for one in report.queries)
    assert all(one.rows > 0 for one in report.queries)
    assert {one.along for one in report.growth} == {"days", "replicas", "heads"}
    assert all(len(one.seconds) >= 3 for one in report.growth)
    assert "warm_p95_seconds_max" in query.render(report)
