"""Effect sizes of an incident's heads, counted by a real store: what was put in with a known shift comes out with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from headwatch.aggregate.histogram import BUCKETS, bucket_index
from headwatch.config import StoreConfig
from headwatch.errors import StoreError
from headwatch.findings import NamedHead
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.clickhouse.reading.head_counts import MOST_HEADS, MOST_SPAN_NS

from ..unit.incidents import SECOND, event, evidence, head, incident

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch_exporters.clickhouse.reading.queries import StoreReader

pytestmark = pytest.mark.store

SINCE_NS = time.time_ns() // (60 * SECOND) * 60 * SECOND - 600 * SECOND
BEFORE, SINCE = 90, 40
SHIFT = 0.1
MOVED, STILL = (0, 0), (0, 1)
ODD = (1, 2)
"""A head with values at the edges of buckets, beyond them, and none."""
ODD_VALUES = [0.0, 2.0**-20, 2.0**-16, 0.25, 0.5, 1.0, 1.0000001, float("nan"), *np.geomspace(1e-4, 0.99, 60).tolist()]


def rows(place: tuple[int, int], times: list[int], values: list[float], **changes: Any) -> dict[str, list[Any]]:
    """Return rows of requests at *times* in which the head at *place* looks back so much."""
    plain: dict[str, Any] = {
        "service": "vllm", "model": "smol", "route": "support", "arm": "", "weight": 1.0, "layer": place[0],
        "head": place[1], "entropy": 0.5, "max_weight": 0.5, "sink_mass": 0.5, "local_mass": 0.5, "distance": 0.5,
        "document_mass": float("nan"),
    }  # fmt: skip
    ids = [f"r-{time_ns}" for time_ns in times]
    columns: dict[str, list[Any]] = {name: [value] * len(times) for name, value in (plain | changes).items()}
    return {"time": times, "request_id": ids, "engine_id": ids, "lookback": values, **columns}


def drawn(mean: float, requests: int, seed: int) -> list[float]:
    """Return values as the store keeps them, float32."""
    values = np.random.default_rng(seed).normal(mean, 0.03, requests).clip(0.01, 0.99)
    return values.astype(np.float32).tolist()


BEFORE_NS = [SINCE_NS - (n + 1) * 30 * SECOND for n in range(BEFORE)]
SINCE_TIMES_NS = [SINCE_NS + n * 5 * SECOND for n in range(SINCE)]
VALUES = {
    MOVED: (drawn(0.4, BEFORE, 1), drawn(0.4 - SHIFT, SINCE, 2)),
    STILL: (drawn(0.4, BEFORE, 3), drawn(0.4, SINCE, 4)),
}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreReader]:
    store = ClickHouseExporter.open(StoreConfig(url=f"chdb://{tmp_path_factory.mktemp('effects')}/store"))
    batches = [rows(place, BEFORE_NS + SINCE_TIMES_NS, [*values[0], *values[1]]) for place, values in VALUES.items()]
    batches += [
        rows(MOVED, BEFORE_NS, [0.9] * BEFORE, route="hr"),
        rows(MOVED, BEFORE_NS, [0.9] * BEFORE, model="other"),
        rows(MOVED, [SINCE_NS - 2 * 3600 * SECOND, SINCE_NS - MOST_SPAN_NS - SECOND], [0.9] * 2),
        rows((1, 0), BEFORE_NS, [0.9] * BEFORE),
        rows(ODD, [SINCE_NS + n for n in range(len(ODD_VALUES))], ODD_VALUES),
    ]
    for number, columns in enumerate(batches):
        store._connection.insert("headwatch_request_heads", columns, f"effects-{number}")
    yield store.reader()
    store.close()


def named(place: tuple[int, int], **changes: object) -> NamedHead:
    return msgspec.structs.replace(NamedHead(*place, "lookback", "support", "decode", "smol"), **changes)


def counted(reader: StoreReader, *heads: NamedHead, hours: int = 1) -> list[Any]:
    span_ns = hours * 3600 * SECOND
    return reader.head_counts(heads, since_ns=SINCE_NS, first_ns=SINCE_NS - span_ns, last_ns=SINCE_NS + span_ns)


def slots(values: list[float]) -> list[int]:
    defined = np.array([value for value in values if not np.isnan(value)], np.float32)
    return np.bincount(bucket_index(defined) + 1, minlength=BUCKETS + 1).tolist()


def test_requests_are_counted_in_the_buckets_of_the_product_before_and_since(reader: StoreReader):
    found = counted(reader, named(STILL), named(MOVED))
    assert [(one.named.layer, one.named.head) for one in found] == [STILL, MOVED]
    for one, place in zip(found, (STILL, MOVED), strict=True):
        before, since = VALUES[place]
        assert (one.before.tolist(), one.since.tolist()) == (slots(before), slots(since))
        assert (one.total_before, one.total_since) == pytest.approx((sum(before), sum(since)))


def test_values_at_the_edges_fall_where_the_histograms_put_them_and_what_is_undefined_nowhere(reader: StoreReader):
    (found,) = counted(reader, named(ODD))
    assert found.since.tolist() == slots(ODD_VALUES)
    assert (found.since[0], found.since.sum(), found.before.sum()) == (3, len(ODD_VALUES) - 1, 0)


def test_without_a_route_all_routes_of_the_model_count(reader: StoreReader):
    (found,) = counted(reader, named(MOVED, route=""))
    assert found.before.sum() == 2 * BEFORE
    (found,) = counted(reader, named(MOVED, route="nobody's"))
    assert found.before.sum() + found.since.sum() == 0


def test_the_span_is_bounded_whatever_is_asked_for(reader: StoreReader):
    assert [one.before.sum() for one in counted(reader, named(MOVED), hours=3)] == [BEFORE + 1]
    assert [one.before.sum() for one in counted(reader, named(MOVED), hours=100)] == [BEFORE + 1]


def test_heads_of_several_features_and_routes_are_told_apart(reader: StoreReader):
    asked = [named(MOVED, route="hr"), named(MOVED), named(MOVED, feature="entropy"), named(MOVED, feature="document_mass")]
    found = counted(reader, *asked)
    assert [int(one.before.sum()) for one in found] == [BEFORE, BEFORE, BEFORE, 0]
    assert [round(one.total_before / BEFORE, 3) for one in found[:3]] == [0.9, round(sum(VALUES[MOVED][0]) / BEFORE, 3), 0.5]


def test_heads_of_several_models_are_told_apart_and_an_incident_counts_each_in_the_rows_of_its_own(reader: StoreReader):
    asked = [named(MOVED, model=model) for model in ("other", "smol", "nobody's", "")]
    found = counted(reader, *asked)
    assert [int(one.before.sum()) for one in found] == [BEFORE, BEFORE, 0, 2 * BEFORE]
    assert round(found[0].total_before / BEFORE, 3) == 0.9
    place = {"layer": MOVED[0], "head": MOVED[1]}
    pieces = tuple(evidence(model=model, heads=(head(**place),)) for model in ("smol", "other"))
    heads = reader.effects(incident(event=event(since_ns=SINCE_NS, evidence=pieces)))["heads"]
    assert [(one["model"], one["requests_before"], one["requests_since"]) for one in heads] == [
        ("smol", BEFORE, SINCE), ("other", BEFORE, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("feature", ["output_norm", "lookback) OR (1 = 1", "time"])
def test_only_the_features_that_are_shares_are_asked_for(reader: StoreReader, feature: str):
    with pytest.raises(StoreError, match="unknown feature"):
        counted(reader, named(MOVED, feature=feature))


def test_too_many_heads_are_refused_and_none_are_nothing(reader: StoreReader):
    with pytest.raises(StoreError, match="17 heads are asked for; at most 16"):
        counted(reader, *(named((0, n)) for n in range(MOST_HEADS + 1)))
    assert counted(reader) == []


def test_the_sizes_of_an_incident_tell_the_head_that_moved_from_the_one_that_did_not(reader: StoreReader):
    found = evidence(heads=tuple(head(n, layer=layer, head=place) for n, (layer, place) in enumerate((MOVED, STILL, ODD))))
    page = incident(event=event(since_ns=SINCE_NS, time_ns=SINCE_NS + 300 * SECOND, evidence=(found,)))
    answer = reader.effects(page)
    assert (answer["incident"], answer["model"], answer["since_ns"]) == (page.id, "smol", SINCE_NS)
    assert answer["first_ns"] == SINCE_NS - 3600 * SECOND
    moved, still, odd = answer["heads"]
    assert (moved["requests_before"], moved["requests_since"]) == (BEFORE, SINCE)
    assert moved["mean_before"] - moved["mean_since"] == pytest.approx(SHIFT, abs=0.02)
    assert moved["wasserstein"]["value"] == pytest.approx(moved["mean_before"] - moved["mean_since"], abs=0.01)
    for name in ("wasserstein", "jensen_shannon", "psi"):
        assert moved[name]["value"] > 1.5 * moved[name]["rarely_by_chance"], name
        assert still[name]["value"] < 1.2 * still[name]["rarely_by_chance"], name
    assert still["psi"]["by_chance"] > 0.2, "the customary limit is passed by chance"
    assert (odd["requests_before"], odd["mean_before"], odd["psi"]) == (0, None, None)
    msgspec.json.encode(answer)


def test_an_incident_that_took_days_to_be_found_says_how_far_was_read(reader: StoreReader):
    page = incident(event=event(since_ns=SINCE_NS - 3 * MOST_SPAN_NS, time_ns=SINCE_NS))
    assert reader.effects(page)["last_ns"] == SINCE_NS - 2 * MOST_SPAN_NS
