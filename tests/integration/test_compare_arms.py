"""Arms of an experiment, from the real store through the real HTTP API to the verdict."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from headwatch.cli.main import main
from headwatch.config import StoreConfig
from headwatch.console.static import StaticView
from headwatch.health import Health
from headwatch.model import REQUEST_FEATURES
from headwatch.records import Delivery, RequestRecord
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter

from ..unit import frames
from ..unit.sidecars import health, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.store

NOW_NS = time.time_ns()
REQUESTS = 40
SHIFTED = (1, 2)


def record(arm: str, number: int, random: np.random.Generator, *, grounding: float = 0.6, head: float = 0.0) -> RequestRecord:
    context = msgspec.structs.replace(
        frames.context(f"{arm}-{number}", route="support" if number % 3 else "search"), arm=arm,
        prompt_tokens=int(random.integers(520, 1000)), prompt_digest="aaaaaaaa",
    )  # fmt: skip
    heads = 0.5 + 0.05 * random.normal(size=(len(REQUEST_FEATURES), frames.LAYERS, frames.HEADS))
    heads[REQUEST_FEATURES.index("entropy"), *SHIFTED] += head
    ratio = grounding + 0.05 * random.normal()
    ended = NOW_NS - (1000 - 2 * number) * frames.SECOND
    return RequestRecord(context, frames.worker(), ended - 1, ended, 1, 8, "measured", ratio, ratio, 0.5, (0.5, 0.5), 0,
                         heads.astype(np.float32))  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    path: Path = tmp_path_factory.mktemp("arms")
    exporter = ClickHouseExporter.open(StoreConfig(url=f"chdb://{path}/store"))
    random = np.random.default_rng(5)
    arms = {"control": {}, "same": {}, "ignored": {"grounding": 0.4}, "head": {"head": 0.1}}
    records = [record(arm, number, random, **change) for arm, change in arms.items() for number in range(REQUESTS)]
    few = [record("few", number, random) for number in range(3)]
    exporter.export(Delivery(NOW_NS, "vllm", (), tuple(records + few), Health(NOW_NS, (), {}, {})))
    with serving(StaticView(health(), reader=exporter.reader())) as address:
        yield address
    exporter.close()


def held(url, capsys, second, *more):
    code = main(["compare", "arm:control", f"arm:{second}", "--url", url, "--permutations", "599", "--json", *more])
    return code, json.loads(capsys.readouterr().out)


def test_equal_arms_are_the_same(url, capsys):
    code, found = held(url, capsys, "same")
    assert (code, found["different"]) == (0, False)
    assert found["first"]["members"] == found["second"]["members"] == REQUESTS
    assert sorted(found["strata"]["compared"]) == ["search|512-1k|decode", "support|512-1k|decode"]


def test_an_arm_whose_documents_are_ignored_is_a_matter_of_retrieval(url, capsys):
    code, found = held(url, capsys, "ignored")
    assert (code, found["verdict"]["drift_class"]) == (1, "retrieval")
    named = {signal["name"] for signal in found["signals"] if signal["p_value"] <= 0.02}
    assert named == {"grounding_ratio", "grounding_ratio_retrieval"}


def test_a_head_that_differs_is_named_and_is_not_the_models(url, capsys):
    """One deployment served both arms, so the model is the same."""
    code, found = held(url, capsys, "head")
    assert (code, found["verdict"]["drift_class"]) == (1, "traffic")
    assert {(head["layer"], head["head"]) for head in found["heads"] if head["p_value"] <= 0.02} == {SHIFTED}
    assert not any("canary" in warning for warning in found["warnings"])


def test_a_part_of_an_arm_by_time(url, capsys):
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime((NOW_NS - 960 * frames.SECOND) // frames.SECOND))
    assert main(["compare", f"arm:control@{since}..", "arm:same", "--url", url, "--permutations", "599", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first"]["members"] == pytest.approx(REQUESTS / 2, abs=1)


@pytest.mark.parametrize(("arm", "said"), [("few", "too few to tell a difference"), ("nobody", "there are no requests in it")])
def test_what_cannot_be_compared(url, capsys, arm, said):
    first = "few" if arm == "few" else "control"
    assert main(["compare", f"arm:{first}", f"arm:{arm}", "--url", url]) == 2
    assert said in capsys.readouterr().err


def test_an_arm_is_not_compared_with_a_recording(url, capsys, tmp_path):
    assert main(["compare", "arm:control", str(tmp_path / "x.history"), "--url", url]) == 2
    assert "there is no history" in capsys.readouterr().err


def test_units_of_several_requests_are_means_and_their_answers_bounded(url):
    from headwatch.cli.api import call

    one = call(url, "/api/v1/units?arm=control&length=1&limit=256")
    four = call(url, "/api/v1/units?arm=control&length=4&limit=5")
    assert one["requests"] == four["requests"] == REQUESTS
    assert len({unit["unit"] for unit in one["units"]}) == REQUESTS
    assert sum(unit["requests"] for unit in four["units"]) == 20
    signals = {length: call(url, f"/api/v1/signals?arm=control&length={length}&limit={limit}")["signals"]
               for length, limit in ((1, 256), (4, 5))}  # fmt: skip
    latest = [unit for unit in signals[1] if unit["unit"] >= REQUESTS - 4]
    mean = np.average([unit["values"]["grounding_ratio"][0] for unit in latest])
    last = [unit["values"]["grounding_ratio"] for unit in signals[4] if unit["unit"] == 4]
    assert sum(value * count for value, count in last) / sum(count for _, count in last) == pytest.approx(mean, rel=1e-6)
