"""Figures of signals in the store: what is written is what was measured, and the query that docs/signals.md gives runs."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from headwatch.aggregate.windows import Aggregator
from headwatch.config import StoreConfig, WindowConfig
from headwatch.health import Health
from headwatch.model import Document
from headwatch.records import Delivery
from headwatch.wire.columns import view
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter

from ..unit.frames import HEADS, LAYERS, context, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.store

VALUES = {"entropy": 0.5, "sink_mass": 0.2, "lookback": 0.25}
PAGE = Path(__file__).parents[2] / "docs" / "signals.md"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseExporter]:
    """A store with one request that reads a restricted document, and one that has none."""
    opened = ClickHouseExporter.open(StoreConfig(url=f"chdb://{tmp_path_factory.mktemp('signals')}/store"))
    documents = [Document("d0", source="wiki"), Document("d1", source="wiki", labels={"classification": "restricted"})]
    named = msgspec.structs.replace(
        context("r-1"), documents=documents, language="de", template="v7", prompt_digest="0badcafe"
    )
    now_ns = time.time_ns()
    aggregator = Aggregator(WindowConfig(), {"model": np.eye(LAYERS, HEADS, dtype=bool)})
    for request, rows in (
        (named, [(9, VALUES, [0.3, 0.2, 0.4, 0.1, 0.0]), (10, VALUES, [0.3, 0.3, 0.1, 0.1, 0.2])]),
        (context("r-2", documents=0), [(10, VALUES, [0.3, 0.3, 0.1, 0.3])]),
    ):
        batch = summary(rows, request=request, finished=[request.engine_id], time_ns=now_ns)
        aggregator.add(batch, view(batch))
    windows, records = aggregator.collect(now_ns, everything=True)
    opened.export(Delivery(now_ns, "vllm", tuple(windows), tuple(records), Health(now_ns, (), {}, {})))
    yield opened
    opened.close()


def test_a_request_is_kept_with_what_its_heads_looked_at(store: ClickHouseExporter) -> None:
    named, bare = store._connection.query("SELECT * FROM headwatch_requests ORDER BY engine_id")
    assert (named["language"], named["template"], named["prompt_digest"]) == ("de", "v7", "0badcafe")
    assert (named["prompt_kind"], bare["prompt_kind"]) == ("<256 docs:2 turns:0", "<256 docs:0 turns:1")
    assert named["instruction_focus"] == pytest.approx((0.1 + 0.1) / (0.1 + 0.1 + 0.6))
    assert named["span_mass"] == pytest.approx({"system": 0.125, "user": 0.125, "document": 0.5, "generated": 0.25})
    assert bare["instruction_focus"] is None, "undefined is no 0"
    assert (named["history_mass"], bare["history_mass"]) == (None, None)


def test_a_document_is_kept_with_the_share_that_the_calibrated_heads_gave_it(store: ClickHouseExporter) -> None:
    rows = store._connection.query("SELECT * FROM headwatch_documents ORDER BY rank")
    assert [row["document_id"] for row in rows] == ["d0", "d1"]
    assert [row["share_retrieval_heads"] for row in rows] == pytest.approx([0.75, 0.25])
    assert [row["share"] for row in rows] == pytest.approx([0.75, 0.25])
    assert [row["share_prompt_end"] for row in rows] == pytest.approx([1 / 3, 2 / 3]), "before anything is answered"


def test_the_query_of_the_page_tells_which_prompts_draw_what_is_forbidden(store: ClickHouseExporter) -> None:
    (sql,) = re.findall(r"```sql\n(.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (row,) = store._connection.query(sql)
    assert (row["route"], row["prompt_kind"], row["requests"]) == ("support", "<256 docs:2 turns:0", 1)
    assert row["share"] == pytest.approx(0.25)
