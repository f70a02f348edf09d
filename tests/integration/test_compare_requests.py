"""Requests in the store: a canary release beside the one in use, adapters, and what lies around a release that was marked."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from headwatch.cli.main import main
from headwatch.config import StoreConfig
from headwatch.console.static import StaticView
from headwatch.findings import DeployEvent
from headwatch.health import Health
from headwatch.model import Document
from headwatch.records import Delivery, Selection
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter

from ..unit.sidecars import health, serving
from ..unit.signals import requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.records import RequestRecord

pytestmark = pytest.mark.store

NOW_NS = time.time_ns()
REQUESTS = 30
RELEASED_NS = NOW_NS - REQUESTS * 5 * requests.SECOND
"""In the middle of the requests, which are ten seconds apart."""


def record(
    number: int, random: np.random.Generator, *, model="chat", revision="r1", adapter="", version="7", head=0.0,
    prompt_tokens=600,
) -> RequestRecord:  # fmt: skip
    documents = [Document(f"d{place}", source="wiki", version=version) for place in range(3)]
    name = f"{model}-{revision}-{adapter}-{number}"
    made = requests.record(documents, [100, 100, 100], [0.5, 0.3, 0.2], name=name, ratio=0.5 + 0.05 * random.normal(),
                           prompt_tokens=prompt_tokens)  # fmt: skip
    heads = 0.5 + 0.05 * random.normal(size=made.head_means.shape) + head
    ended = NOW_NS - (REQUESTS - number) * 10 * requests.SECOND
    return replace(
        made, context=msgspec.structs.replace(made.context, adapter=adapter, request_id=name), started_ns=ended - 1,
        ended_ns=ended, head_means=heads.astype(np.float32),
        worker=msgspec.structs.replace(made.worker, model=model, revision=revision),
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[ClickHouseExporter]:
    random = np.random.default_rng(7)
    kinds = (
        {}, {"revision": "r2"}, {"revision": "stale", "version": "6"}, {"revision": "r3", "head": 0.2},
        {"model": "law", "adapter": ""}, {"model": "law", "adapter": "v2", "head": 0.2},
    )  # fmt: skip
    records = [record(number, random, **kind) for kind in kinds for number in range(REQUESTS)]
    records += [record(number, random, model="steps", version="67"[number * 2 < REQUESTS]) for number in range(REQUESTS)]
    records += [record(number, random, model="short", prompt_tokens=40 + 100 * (number % 2)) for number in range(4)]
    exporter = ClickHouseExporter.open(StoreConfig(url=f"chdb://{tmp_path_factory.mktemp('requests')}/store"))
    deploys = (DeployEvent(RELEASED_NS - requests.SECOND, "retriever 8"),)
    exporter.export(Delivery(NOW_NS, "vllm", (), tuple(records), Health(NOW_NS, (), {}, {}), deploys=deploys))
    yield exporter
    exporter.close()


@pytest.fixture(scope="module")
def url(store) -> Iterator[str]:
    with serving(StaticView(health(), reader=store.reader())) as address:
        yield address


def held(url, capsys, first, second):
    code = main(["compare", first, second, "--url", url, "--permutations", "599", "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_two_revisions_at_once_are_held_apart_in_everything(url, capsys):
    code, found = held(url, capsys, "requests[model=chat,revision=r1]", "requests[model=chat,revision=r2]")
    assert (code, found["first"]["members"], found["second"]["members"]) == (0, REQUESTS, REQUESTS)
    assert (found["first"]["revisions"], found["second"]["revisions"]) == (["r1"], ["r2"])
    assert found["second"]["shared_windows"] == 0
    code, found = held(url, capsys, "requests[model=chat,revision=r1]", "requests[model=chat,revision=stale]")
    assert (code, found["verdict"]["cause"]) == (1, "stale_documents")


def test_another_revision_may_be_another_model(url, capsys):
    """No canary tells, and nothing says that both are one model."""
    code, found = held(url, capsys, "requests[model=chat,revision=r1]", "requests[model=chat,revision=r3]")
    assert (code, found["verdict"]["drift_class"], found["verdict"]["runner_up"]) == (1, "model", "traffic")


def test_an_adapter_beside_none(url, capsys):
    code, found = held(url, capsys, "requests[model=law,adapter=]", "requests[model=law,adapter=v2]")
    assert (code, found["verdict"]["drift_class"]) == (1, "model")
    assert found["strata"]["compared"] == ["support|512-1k|decode"]


def test_before_and_after_a_release_that_the_store_knows(url, capsys):
    code, found = held(url, capsys, "requests[model=steps]@before:retriever", "requests[model=steps]@after:retriever")
    assert (code, found["verdict"]["cause"]) == (1, "stale_documents")
    assert found["first"]["last_ns"] < RELEASED_NS - requests.SECOND <= found["second"]["first_ns"]
    assert found["first"]["members"] + found["second"]["members"] == REQUESTS


def test_several_models_need_one_to_be_chosen(url, capsys):
    assert main(["compare", "requests[revision=r1]", "requests[revision=r2]", "--url", url]) == 2
    assert "holds several models (chat, law, short, steps); choose one, as in [model=chat]" in capsys.readouterr().err


def test_prompts_of_the_shortest_band_are_one_stratum(store):
    """40 tokens and 140 are both below 256: one entry a unit, or the heads of one would hide those of the other."""
    (unit,) = store.reader().units(Selection(model="short"), length=4)["units"]
    assert (unit["band"], unit["requests"]) == ("<256", 4)
