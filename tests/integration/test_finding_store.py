"""What was found, in a real store: incidents as they last were, evidence once for each window."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from headwatch.config import StoreConfig
from headwatch.delivery import QUEUE_DELIVERIES, ExporterThread
from headwatch.findings import BaselineInForce, FingerprintInForce
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter

from ..programs import wait_for
from ..traffic import EMPTY, delivery
from ..unit.incidents import SECOND, canary, deploy, event, evidence, found, head, incident, resolved, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwatch.records import Delivery

pytestmark = pytest.mark.store

NOW_NS = time.time_ns() // (60 * SECOND) * 60 * SECOND
TABLES = ("headwatch_incidents", "headwatch_drift_evidence", "headwatch_canaries", "headwatch_deploys")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ClickHouseExporter]:
    opened = ClickHouseExporter.open(StoreConfig(url=f"chdb://{tmp_path}/store"))
    yield opened
    opened.close()


def rows(store: ClickHouseExporter, sql: str) -> list[dict[str, Any]]:
    return store._connection.query(sql)


def counts(store: ClickHouseExporter) -> list[int]:
    return [rows(store, f"SELECT count() AS n FROM {table}")[0]["n"] for table in TABLES]


def at(seconds: float = 0.0, **changes: object) -> Delivery:
    """Return a delivery of that moment, with one incident, two pieces of evidence, two canary runs and a release."""
    return found(delivery(start_ns=NOW_NS + int(seconds * SECOND) - 63 * SECOND), **changes)


def test_everything_found_is_written_once(store: ClickHouseExporter):
    sent = at()
    store.export(sent)
    assert counts(store) == [1, 2, 2, 1]
    store.export(sent)
    assert counts(store) == [1, 2, 2, 1]


def test_what_measurements_are_held_against_is_written_once(store: ClickHouseExporter):
    baseline = BaselineInForce(NOW_NS, 3, "pinned", NOW_NS - SECOND, 10, 1460, 1440, "before release 8")
    fingerprint = FingerprintInForce(NOW_NS, NOW_NS - SECOND, "smol", "r1", "bfloat16", "2", 5, exact=False, note="")
    for _ in range(2):
        store.export(replace(EMPTY, baselines=(baseline,), fingerprints=(fingerprint,)))
    sql = "SELECT service, version, origin, toUnixTimestamp64Nano(created) AS made, windows, note FROM headwatch_baselines"
    assert rows(store, sql) == [{"service": EMPTY.service, "version": 3, "origin": "pinned", "made": NOW_NS - SECOND,
                                 "windows": 1440, "note": "before release 8"}]  # fmt: skip
    assert rows(store, "SELECT model, revision, dtype, runs, exact FROM headwatch_fingerprints") == [
        {"model": "smol", "revision": "r1", "dtype": "bfloat16", "runs": 5, "exact": False}
    ]


def test_an_incident_is_read_back_as_it_last_was(store: ClickHouseExporter):
    opened = incident(1, opened_ns=NOW_NS, updated_ns=NOW_NS)
    acknowledged = msgspec.structs.replace(opened, state="acknowledged", acknowledged_by="ada", updated_ns=NOW_NS + SECOND)
    closed = resolved(1, opened_ns=NOW_NS, resolved_ns=NOW_NS + 2 * SECOND, updated_ns=NOW_NS + 2 * SECOND)
    other = incident(2, opened_ns=NOW_NS - SECOND, updated_ns=NOW_NS - SECOND)
    for seconds, changed in enumerate([(opened, other), (closed,), (acknowledged,)]):  # the last one late
        store.export(at(seconds, incidents=changed))
    reader = store.reader()
    assert reader.stored_incidents() == [closed, other]
    assert reader.stored_incidents(state="open") == [other]
    assert reader.stored_incidents(state="acknowledged") == []
    assert reader.stored_incidents(limit=1) == [closed]


def test_what_was_found_while_the_store_was_away_is_in_it_afterwards(store: ClickHouseExporter):
    """Grafana's rule pages on what the store has.  An incident that does not change again must still arrive, also where its
    delivery was pushed out of the full queue and nobody tried to write it; and what was written in part is written once."""
    opened, other = (incident(number, opened_ns=NOW_NS, updated_ns=NOW_NS) for number in (1, 2))
    closed = resolved(1, opened_ns=NOW_NS, resolved_ns=NOW_NS + SECOND, updated_ns=NOW_NS + SECOND)
    thread = ExporterThread(store, first_pause_seconds=0.001)
    store._connection.command("RENAME TABLE headwatch_deploys TO moved")
    thread.start()
    for second, changed in enumerate([opened, closed]):
        thread.offer(at(second, incidents=(changed,)))
    wait_for(lambda: thread.health().dropped_batches == 2, "both to be given up")
    canaries = "SELECT count() AS n FROM headwatch_canaries"
    assert rows(store, canaries) != [{"n": 0}], "a part of them was written"
    with store._connection._insert_lock:  # the store does not answer
        for number in range(QUEUE_DELIVERIES + 5):
            thread.offer(replace(EMPTY, time_ns=NOW_NS + number, incidents=(other,) if number == 2 else ()))
        assert thread.health().dropped_batches > 4, "that of the other one among them"
    store._connection.command("RENAME TABLE moved TO headwatch_deploys")
    thread.offer(replace(EMPTY, time_ns=NOW_NS + SECOND))
    wait_for(lambda: thread.health().queue_batches == 0, "the queue")
    wait_for(lambda: rows(store, "SELECT count() AS n FROM headwatch_deploys") == [{"n": 2}], "the releases")
    assert store.reader().stored_incidents() == [closed, other]
    assert rows(store, canaries) == [{"n": 4}]
    thread.stop()


def test_the_columns_of_an_incident_say_what_its_document_says(store: ClickHouseExporter):
    store.export(at())
    (row,) = rows(store, "SELECT * EXCEPT document FROM headwatch_incidents FINAL")
    assert (row["class"], row["cause"], row["severity"], row["state"]) == ("retrieval", "documents_ignored", "critical", "open")
    assert (row["page_route"], row["paged"], row["silenced"], row["resolved"]) == ("webhook", True, False, None)
    assert list(zip(row["heads.layer"], row["heads.head"], row["heads.feature"], strict=True)) == [
        (0, 0, "lookback"), (0, 1, "lookback"),
    ]  # fmt: skip
    assert (row["documents.id"], row["requests.engine_id"]) == (["doc-1"], ["chatcmpl-1-0a1b2c3d"])


def test_a_status_that_is_repeated_is_one_window(store: ClickHouseExporter):
    """Deliveries come each second, windows each minute: the status between them is the same one."""
    step = status(window=7, time_ns=NOW_NS)
    for seconds in range(5):
        store.export(at(seconds, drift=step))
    assert rows(store, "SELECT count() AS n FROM headwatch_drift_evidence") == [{"n": 2}]
    gauges = "SELECT count() AS n FROM otel_metrics_gauge WHERE MetricName = 'headwatch.drift.evidence'"
    assert rows(store, gauges) == [{"n": 2}]
    store.export(at(60, drift=status(window=8, time_ns=NOW_NS + 60 * SECOND)))
    assert rows(store, "SELECT count() AS n FROM headwatch_drift_evidence") == [{"n": 4}]
    assert rows(store, gauges) == [{"n": 4}]


def test_windows_that_are_stepped_again_after_a_kill_change_nothing(tmp_path: Path):
    """Another process hands out the same findings at another time: the store has them."""
    url = f"chdb://{tmp_path}/store"
    first = ClickHouseExporter.open(StoreConfig(url=url))
    sent = at()
    first.export(sent)
    first.close()
    again = ClickHouseExporter.open(StoreConfig(url=url))
    again.export(replace(sent, time_ns=sent.time_ns + 30 * SECOND))
    assert counts(again) == [1, 2, 2, 1]
    again.close()


def test_the_store_says_whether_canaries_run(store: ClickHouseExporter):
    store.export(at())
    sums = rows(store, "SELECT MetricName, Attributes['headwatch.reason'] AS reason, Value FROM otel_metrics_sum "
                       "WHERE MetricName IN ('headwatch.canary.runs', 'headwatch.canary.failures') AND Value > 0 ORDER BY ALL")
    assert [tuple(row.values()) for row in sums] == [
        ("headwatch.canary.failures", "refused", 2), ("headwatch.canary.failures", "timed_out", 1),
        ("headwatch.canary.runs", "", 7),
    ]  # fmt: skip
    gauges = rows(store, "SELECT MetricName, Value FROM otel_metrics_gauge WHERE MetricName IN "
                         "('headwatch.canary.run_age', 'headwatch.canary.interval') ORDER BY ALL")
    assert [row["Value"] for row in gauges] == [300.0, 60.0]


def test_what_is_no_number_and_what_is_not_there_is_kept_as_that(store: ClickHouseExporter):
    odd = status(time_ns=NOW_NS, clock=float("-inf"), evidence=(evidence(before=float("nan"), log10_evidence=float("-inf")),))
    runs = (canary(time_ns=NOW_NS, earliest_layer=None), canary("b", time_ns=NOW_NS, earliest_layer=3, heads=(head(),)))
    store.export(at(drift=odd, canaries=runs))
    (row,) = rows(store, "SELECT isInfinite(clock) AS c, isNaN(before) AS b FROM headwatch_drift_evidence")
    assert row == {"c": 1, "b": 1}
    layers = rows(store, "SELECT prompt, earliest_layer, `heads.layer` AS h FROM headwatch_canaries ORDER BY prompt")
    assert [tuple(row.values()) for row in layers] == [("b", 3, [0]), ("plain", None, [])]


def test_the_reader_answers_what_the_api_asks(store: ClickHouseExporter):
    reader = store.reader()
    assert (reader.evidence(), reader.canaries(), reader.deploys(), reader.stored_incidents()) == ([], [], [], [])
    store.export(at())
    found_now = reader.evidence()
    assert [(row["name"], row["log10_evidence"]) for row in found_now] == [("lookback", 5.5), ("document_mass", 2.0)]
    assert [row["name"] for row in reader.evidence(name="document_mass")] == ["document_mass"]
    assert reader.evidence(since_ns=found_now[0]["time_ns"] + 1) == []
    assert [(row["prompt"], row["failed"]) for row in reader.canaries()] == [("tools", True), ("plain", False)]
    assert [row["prompt"] for row in reader.canaries(prompt="plain")] == ["plain"]
    (release,) = reader.deploys()
    assert (release["title"], release["revision"], release["who"]) == ("release 7", "abc123", "ada")
    msgspec.json.encode([found_now, reader.canaries(), release])


def test_a_large_event_is_bounded(store: ClickHouseExporter):
    many = tuple(evidence(f"e-{n}", heads=tuple(head(k) for k in range(100))) for n in range(50))
    store.export(at(incidents=(incident(event=event(evidence=many)),)))
    (row,) = rows(store, "SELECT length(`heads.layer`) AS heads FROM headwatch_incidents")
    assert row == {"heads": 50}


def test_incidents_are_kept_longer_than_evidence(tmp_path: Path):
    """Each table as long as the configuration says, also where that changed."""
    url = f"chdb://{tmp_path}/store"
    for days in (400, 30):
        store = ClickHouseExporter.open(StoreConfig(url=url, incident_ttl_days=days))
        wanted = "('headwatch_incidents', 'headwatch_deploys')"
        engines = rows(store, f"SELECT engine_full FROM system.tables WHERE name IN {wanted}")
        assert all(f"toIntervalDay({days})" in row["engine_full"] for row in engines)
        assert len(engines) == 2
        store.close()


def test_releases_of_one_moment_are_both_kept(store: ClickHouseExporter):
    store.export(at(deploys=(deploy(time_ns=NOW_NS), deploy(time_ns=NOW_NS, title="release 8"))))
    assert rows(store, "SELECT count() AS n FROM headwatch_deploys") == [{"n": 2}]
