"""A backtest says what a sidecar would have done: the same incidents, and who would have been woken."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest

from headwatch.findings import DeployEvent
from headwatch.history.file import History
from headwatch.places import HISTORY
from headwatch.watch.backtest import Outcome, backtest

from .scenes import CONFIG, SECOND, START, opened, taught, window, with_canary

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from headwatch.config import Config
    from headwatch.observed import ObservedWindow


def replayed(folder: Path, config: Config = CONFIG) -> Outcome:
    """Return what a backtest of all windows in *folder* comes to, as a new deployment."""
    outcome = Outcome()
    with History.open_readonly(folder / HISTORY) as history:
        for one in backtest(history, config, None, START, START + 10_000):
            outcome.add(one)
    return outcome


def recorded(folder: Path, changed: Iterable[ObservedWindow]) -> None:
    """Keep a healthy deployment and then *changed* in a history; nothing judges them."""
    watch, _ = taught(folder)
    for seen in changed:
        watch.history.append(seen)
    watch.close()


NEXT = 75
"""The first window after those that are healthy."""


def broken(number: int, name: str) -> ObservedWindow:
    seen = window(number)
    if name == "canary":
        return with_canary(seen, failed=True)
    if name == "telemetry":
        return with_canary(replace(seen, telemetry={**seen.telemetry, "refused_layers": 2.0}))
    if name == "template":
        traffic = {key: value for key, value in seen.traffic.items() if not key.startswith("template:")}
        return with_canary(replace(seen, traffic={**traffic, "template:hr:ffffffff": 10.0}))
    if name == "traffic":
        return with_canary(window(number, route="legal"))
    return with_canary(window(number, documents_absent=1.0))


@pytest.mark.parametrize(
    ("name", "verdict", "pages"),
    [
        ("documents", ("retrieval", "documents_absent"), 1),
        ("canary", ("model", "weights"), 1),
        ("telemetry", ("telemetry", "layers_refused"), 1),
        ("template", ("model", "system_prompt"), 1),
        ("traffic", ("traffic", "route_mix"), 0),
    ],
)
def test_whatever_pages_in_a_sidecar_pages_in_a_backtest(tmp_path: Path, name: str, verdict: tuple[str, str], pages: int):
    """Not only the clock: failed canaries, faults of telemetry and templates are found, told apart and counted too."""
    live, number = taught(tmp_path)
    assert number == NEXT
    for more in range(20):
        live.take(broken(number + more, name))
    was = live.book.list()
    live.close()
    outcome = replayed(tmp_path)
    assert [told.incident for told in outcome.incidents.values()] == was[::-1]
    [told] = outcome.incidents.values()
    assert (told.incident.verdict.drift_class, told.incident.verdict.cause) == verdict
    assert len(told.pages) == outcome.pages == pages
    assert all((page.drift_class, page.cause) == verdict and page.window == told.window for page in told.pages)
    assert outcome.windows == NEXT + 20
    assert (outcome.reached > 0) == (name == "documents")


def test_healthy_windows_wake_nobody(tmp_path: Path):
    recorded(tmp_path, (with_canary(window(NEXT + more)) for more in range(60)))
    outcome = replayed(tmp_path)
    assert (outcome.incidents, outcome.pages, outcome.windows) == ({}, 0, NEXT + 60)


def test_what_comes_back_after_it_was_over_is_one_incident_and_pages_twice(tmp_path: Path):
    recorded(tmp_path, (broken(NEXT + more, "canary") if more // 10 != 1 else with_canary(window(NEXT + more))
                        for more in range(25)))  # fmt: skip
    [told] = replayed(tmp_path).incidents.values()
    assert told.incident.reopened == 1
    assert [page.window - START - NEXT for page in told.pages] == [0, 20]


def test_a_sidecar_in_shadow_mode_is_asked_what_would_page(tmp_path: Path):
    recorded(tmp_path, (broken(NEXT + more, "documents") for more in range(20)))
    shadow = msgspec.structs.replace(CONFIG, drift=msgspec.structs.replace(CONFIG.drift, shadow=True))
    assert replayed(tmp_path, shadow).pages == 1


def test_families_in_shadow_stay_there(tmp_path: Path):
    recorded(tmp_path, (broken(NEXT + more, "documents") for more in range(20)))
    hidden = msgspec.structs.replace(CONFIG.drift, shadow_families=("signals.mean", "signals.spread"))
    outcome = replayed(tmp_path, msgspec.structs.replace(CONFIG, drift=hidden))
    assert (outcome.pages, outcome.reached) == (0, 0)
    [told] = outcome.incidents.values()
    assert told.incident.silenced_why == "in shadow: signals.mean, signals.spread"


def test_a_release_that_was_marked_as_planned_wakes_nobody(tmp_path: Path):
    release = DeployEvent(window(NEXT).start_ns + SECOND, "model 2", "r2", "ops", 3600.0)
    changed = [with_canary(window(NEXT + more), failed=True) for more in range(20)]
    recorded(tmp_path, [replace(changed[0], deploys=(release,)), *changed[1:]])
    outcome = replayed(tmp_path)
    assert outcome.pages == 0
    assert next(iter(outcome.incidents.values())).incident.silenced_why == "planned: model 2"


def test_nothing_of_the_sidecar_is_touched(tmp_path: Path):
    recorded(tmp_path, (broken(NEXT + more, "canary") for more in range(5)))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.db")}
    replayed(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.db")} == before
    again = opened(tmp_path)
    assert again.book.list() == []
    again.close()
