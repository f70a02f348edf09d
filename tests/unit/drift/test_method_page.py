"""docs/method.md says what the committed result of ``bench drift`` says, and that result keeps its bars."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from headwatch.bench.drift.peers import PEERS
from headwatch.bench.drift.peers.limits import LIMITS
from headwatch.bench.drift.report import BOUNDS

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module("benchmarks.drift_page")
    finally:
        sys.path.pop(0)


def test_the_page_is_made_of_the_committed_result(maker) -> None:
    """Commit a result, then run `python -m benchmarks.drift_page`."""
    assert maker.PAGE.read_text() == maker.page()


def test_the_pictures_are_made_of_the_committed_result(maker) -> None:
    for name, picture in maker.images().items():
        assert (maker.IMAGES / name).read_text() == picture


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_the_committed_result_keeps_its_bars(maker, name) -> None:
    bound, most = BOUNDS[name]
    seen = maker.report()["bars"][name]
    assert seen <= bound if most else seen >= bound


def test_the_page_says_where_a_peer_is_sooner_and_how_often_the_rest_is_lost(maker) -> None:
    """Whoever commits another result reads the section that explains it again."""
    found, page = maker.report(), maker.PAGE.read_text()
    sooner = [cell for cell in found["delays"] if cell["ratio"] is not None and cell["ratio"] > 1.0]
    assert [(cell["kind"], cell["size"], cell["share"]) for cell in sooner] == [("mean", 0.5, 0.05)]
    assert sooner[0]["best_peer"] == "NannyML"
    lost = sum(cell["slower"] for cell in found["delays_own_null"])
    assert f"slower in {lost} of the {len(found['delays_own_null'])} cells" in page


def test_the_peers_of_the_committed_result_had_the_limits_that_a_quick_run_uses(maker) -> None:
    found = {peer["name"]: peer["limit"] for peer in maker.report()["peers"]}
    assert found == {name: pytest.approx(max(LIMITS[name].values())) for name in PEERS}
