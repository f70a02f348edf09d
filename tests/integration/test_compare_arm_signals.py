"""Signals of arms: what the store gives back is what a window would have had, and an arm with a fault is not the same."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from headwatch.cli.main import main
from headwatch.config import StoreConfig
from headwatch.console.static import StaticView
from headwatch.drift.signals import SIGNALS, DocumentBook, signals_of
from headwatch.drift.signals.read import ReadRequest
from headwatch.health import Health
from headwatch.model import Document
from headwatch.records import Delivery, Selection
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.clickhouse.reading import unit_signals

from ..unit.sidecars import health, serving
from ..unit.signals import requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.records import RequestRecord

pytestmark = pytest.mark.store

NOW_NS = time.time_ns()
REQUESTS = 40
DAY_SECONDS = 86_400
SOURCES = ("wiki", "tickets", "archive")
FAULTS = ("stale", "old", "forbidden", "unreliable", "tenant", "truncated", "source_gone", "reversed", "captured", "unread")
LABELS = {"forbidden": {"classification": "restricted"}, "unreliable": {"reliability": "0.2"}, "tenant": {"tenant": "b"}}
ORDINARY = {"classification": "public", "reliability": "0.9", "tenant": "a"}


def record(arm: str, number: int, random: np.random.Generator) -> RequestRecord:
    """Return a request with three documents, one of each source; *arm* says what is wrong with them."""
    retrieved = datetime.fromtimestamp(NOW_NS / 1e9 - (30 * DAY_SECONDS if arm == "old" else 3600), UTC).isoformat()
    version = "7" if number < REQUESTS // 2 else "8"
    documents = [
        Document(
            f"{source}-{number % 5}", source=source, version="6" if arm == "stale" else version, retrieved_at=retrieved,
            labels=ORDINARY | (LABELS.get(arm, {}) if source == "archive" else {}),
        )
        for source in SOURCES
    ]  # fmt: skip
    tokens = [120, 100, 80]
    shares = np.array([0.5, 0.3, 0.2])
    if arm == "truncated":
        tokens = [40, 33, 27]
    if arm == "source_gone":
        documents, tokens, shares = documents[:2], tokens[:2], np.array([0.6, 0.4])
    if arm == "reversed":
        shares = shares[::-1]
    if arm == "unread":
        shares = np.array([0.55, 0.4, 0.03])
    shares = np.clip(shares + 0.02 * random.normal(size=len(shares)), 0.001, None)
    shares /= shares.sum()
    made = requests.record(
        documents, tokens, shares.tolist(), name=f"{arm}-{number}", ratio=0.5 + 0.05 * random.normal(), calibrated=0.4,
        focus=0.6 + 0.02 * random.normal(), kinds={"history": 0.1, "document": 0.4}, prompt_tokens=600,
        weight=1.0 + number % 3,
    )  # fmt: skip
    reading = made.reading
    assert reading is not None
    if arm == "captured":
        drawn = np.array([0.1, 0.1, 0.8], np.float32)
        reading = replace(reading, prompt_end_share=drawn)
    context = msgspec.structs.replace(made.context, arm=arm, request_id=f"{arm}-{number}")
    heads = (0.5 + 0.05 * random.normal(size=made.head_means.shape)).astype(np.float32)
    ended = NOW_NS - (REQUESTS - number) * 10 * requests.SECOND
    return replace(made, context=context, started_ns=ended - 1, ended_ns=ended, reading=reading,
                   reading_retrieval_heads=reading, head_means=heads)  # fmt: skip


@pytest.fixture(scope="module")
def records() -> list[RequestRecord]:
    random = np.random.default_rng(3)
    return [record(arm, number, random) for number in range(REQUESTS) for arm in ("control", "same", *FAULTS)]


@pytest.fixture(scope="module")
def store(tmp_path_factory, records) -> Iterator[ClickHouseExporter]:
    exporter = ClickHouseExporter.open(StoreConfig(url=f"chdb://{tmp_path_factory.mktemp('arms')}/store"))
    exporter.export(Delivery(NOW_NS, "vllm", (), tuple(records), Health(NOW_NS, (), {}, {})))
    yield exporter
    exporter.close()


@pytest.fixture(scope="module")
def url(store) -> Iterator[str]:
    with serving(StaticView(health(), reader=store.reader())) as address:
        yield address


def held(url, capsys, second):
    code = main(["compare", "arm:control", f"arm:{second}", "--url", url, "--permutations", "599", "--json"])
    found = json.loads(capsys.readouterr().out)
    return code, found, {signal["name"] for signal in found["signals"] if signal["p_value"] <= 0.02}


def test_equal_arms_are_the_same(url, capsys):
    code, found, _ = held(url, capsys, "same")
    assert (code, found["different"]) == (0, False)
    assert {signal["name"].partition(".")[0] for signal in found["signal_power"]} > {"grounding_ratio", "rank_first_share"}


@pytest.mark.parametrize(
    ("fault", "signal", "cause"),
    [
        ("stale", "stale_mass", "stale_documents"),
        ("old", "stale_age_days", "stale_documents"),
        ("forbidden", "forbidden_mass", "forbidden_documents"),
        ("unreliable", "unreliable_mass", "unreliable_documents"),
        ("tenant", "other_tenant_mass", "other_tenant"),
        ("truncated", "document_wholeness", "truncated_documents"),
        ("source_gone", "source_presence.archive", "source_broken"),
        ("reversed", "rank_first_share", "rank_order"),
        ("unread", "unread_share", "documents_ignored"),
        ("captured", "capture_by_document", "injection"),
    ],
)
def test_an_arm_whose_documents_are_not_as_they_should_be_is_told(url, capsys, fault, signal, cause):
    code, found, named = held(url, capsys, fault)
    assert code == 1
    assert signal in named
    assert cause in {why.partition("/")[2].split()[0] for why in found["verdict"]["why"] if "/" in why}
    expected = "injection" if fault == "captured" else "retrieval"
    assert found["verdict"]["drift_class"] == expected, found["verdict"]


def signals_of_arm(store, arm):
    return store.reader().signals(Selection(arm=arm), limit=256)["signals"]


def test_every_signal_of_a_request_is_the_one_that_its_window_has(store, records):
    """The definitions are one; what is lost on the way through the store would show here, for new signals too."""
    known = DocumentBook()
    for one in records:
        known.learn(ReadRequest(one))
    book = DocumentBook(sources=known.sources, lengths=known.lengths)
    windows = {one.context.request_id: signals_of([one], book) for one in records}
    seen: set[str] = set()
    for arm in ("control", *FAULTS):
        for unit in signals_of_arm(store, arm):
            by_scope = windows[f"{arm}-{unit['unit']}"].values()
            expected = {name: value.mean for values in by_scope for name, value in values.items()}
            assert {name: mean for name, (mean, _) in unit["values"].items()} == pytest.approx(expected, rel=1e-5), arm
            seen |= {name.partition(".")[0] for name in expected}
    assert seen == SIGNALS.keys()


def test_a_version_is_missed_from_when_any_arm_was_first_given_it(store):
    lags = {arm: [unit["values"]["version_lag"][0] for unit in signals_of_arm(store, arm)]
            for arm in ("control", "stale")}  # fmt: skip
    assert lags["control"] == [0.0] * REQUESTS, "version 8 is not missed before it is there"
    assert lags["stale"][0] == 1.0
    assert lags["stale"][-1] == 2.0


def test_units_weigh_requests_and_are_read_in_pages(store, records, monkeypatch):
    whole = store.reader().signals(Selection(arm="control"), length=20)["signals"]
    of_first = [one for one in records if one.context.arm == "control"][:20]
    weights = np.array([one.context.weight for one in of_first])
    mean = np.average([one.grounding_ratio for one in of_first], weights=weights)
    assert whole[0]["values"]["grounding_ratio"] == pytest.approx([mean, weights.sum() ** 2 / (weights**2).sum()], rel=1e-5)
    monkeypatch.setattr(unit_signals, "PAGE_REQUESTS", 20)
    pages = [store.reader().signals(Selection(arm="control"), length=20, first=first) for first in (0, 1, 2)]
    assert [page["next"] for page in pages] == [1, 2, None]
    assert [unit for page in pages for unit in page["signals"]] == whole
