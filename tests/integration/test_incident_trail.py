"""Every name on a page leads back to rows in a real store: heads, documents and requests."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from headwatch.config import StoreConfig
from headwatch.findings import CanaryExhibit, DriftEvent, Evidence, HeadFinding, Incident, Verdict
from headwatch.incident.exhibits import exhibits_of
from headwatch.incident.trail import leads_of
from headwatch.observed import ObservedDocument, ObservedRequest, ObservedWindow
from headwatch_exporters.clickhouse.connection import Connection, connect
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter

from ..contract.deliveries import HEAD_STEP, full

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.store

MINUTE = 60 * 10**9
NOW_NS = time.time_ns() // MINUTE * MINUTE


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Connection, Incident]]:
    """A store with three requests, and an incident whose exhibits were made from the very records that it got."""
    run = CanaryExhibit(NOW_NS, "needle-2", 0.4, 1e-5, failed=True, earliest_layer=0, hint="head",
                        heads=(HeadFinding(1, 2, "entropy", 0.0, 0.5, 0.9, 40.0),))  # fmt: skip
    delivery = replace(full(NOW_NS), canaries=(run,))
    url = f"chdb://{tmp_path_factory.mktemp('trail')}/store"
    exporter = ClickHouseExporter.open(StoreConfig(url=url))
    exporter.export(delivery)
    exporter.close()
    window = ObservedWindow(
        1, NOW_NS - MINUTE, NOW_NS + MINUTE,
        requests=tuple(
            ObservedRequest(
                one.context.request_id, one.context.engine_id, one.context.trace_id, one.ended_ns, one.worker.model,
                one.context.route, one.state, one.grounding_ratio,
                tuple(ObservedDocument(item.id, item.source, share=share)
                      for item, share in zip(one.context.documents, one.document_share, strict=True)),
            )
            for one in delivery.requests
        ),
    )  # fmt: skip
    heads = tuple(HeadFinding(layer, head, "lookback", 5.0, 0.5, 0.3, -3.0) for layer, head in ((0, 0), (1, 2)))
    found = Evidence("heads", "lookback", "model", "support", "", 5.0, 0.5, 0.3, -3.0, NOW_NS - MINUTE, heads)
    event = DriftEvent(NOW_NS + MINUTE, NOW_NS - MINUTE, "model", "support", (found,), 5.0, 43_200, 60.0, 2)
    verdict = Verdict("model", "weights", "", 0.9, None, "", ())
    incident = Incident("hw-1", "open", "warning", NOW_NS, NOW_NS, event, verdict, exhibits_of(event, [window], canary=run))
    connection = connect(StoreConfig(url=url))
    yield connection, incident
    connection.close()


def answers(stored: tuple[Connection, Incident], what: str) -> dict[str, list[dict[str, Any]]]:
    connection, incident = stored
    return {lead.name: connection.query(lead.sql) for lead in leads_of(incident) if lead.what == what}


def test_heads_lead_to_their_rows_and_to_the_mean_of_what_they_did(stored):
    found = answers(stored, "head")
    assert list(found) == ["layer 0 head 0 lookback", "layer 1 head 2 lookback"]
    means = [rows[0]["mean"] for rows in found.values()]
    assert [rows[0]["requests"] for rows in found.values()] == [3, 3]
    assert means == pytest.approx([0.3, 0.3 + 2 * HEAD_STEP])


def test_documents_lead_to_their_rows_with_the_share_that_is_shown(stored):
    found = answers(stored, "document")
    shown = {one.id: one.share_after for one in stored[1].exhibits.documents}
    assert {name: (rows[0]["requests"], round(rows[0]["mean_share"], 4)) for name, rows in found.items()} == {
        "d0": (3, round(shown["d0"], 4)), "d1": (3, round(shown["d1"], 4)),
    }  # fmt: skip


def test_requests_lead_to_the_one_row_of_each(stored):
    connection, incident = stored
    leads = [lead for lead in leads_of(incident) if lead.what == "request"]
    assert len(leads) == len(incident.exhibits.requests) == 3
    for lead, shown in zip(leads, incident.exhibits.requests, strict=True):
        (row,) = connection.query(lead.sql)
        assert (row["request_id"], row["engine_id"], row["route"]) == (shown.request_id, shown.engine_id, shown.route)
        assert row["grounding_ratio"] == pytest.approx(shown.grounding_ratio)


def test_a_fixed_prompt_leads_to_the_row_of_its_run_with_the_heads_in_which_it_departs(stored):
    connection, incident = stored
    (lead,) = [one for one in leads_of(incident) if one.what == "canary"]
    (row,) = connection.query(lead.sql)
    assert (row["prompt"], row["failed"], row["hint"]) == ("needle-2", True, "head")
    assert (row["heads.layer"], row["heads.head"]) == ([1], [2])


def test_a_name_that_looks_like_sql_is_only_a_name(stored, tmp_path: Path):
    connection, incident = stored
    evil = msgspec.structs.replace(incident.exhibits.documents[0], id="' OR 1 = 1 -- \\")
    exhibits = msgspec.structs.replace(incident.exhibits, documents=(evil,))
    (lead,) = [one for one in leads_of(msgspec.structs.replace(incident, exhibits=exhibits)) if one.what == "document"]
    assert connection.query(lead.sql) == []
