"""The report stands alone, draws what history kept, and believes nothing that a client sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import msgspec
import numpy as np
import pytest

from headwatch.findings import DocumentExhibit, Exhibits
from headwatch.history.file import History
from headwatch.incident.report import render
from headwatch.incident.series import Series, read_series, series_of
from headwatch.observed import DRIFT_FEATURES, ObservedWindow, Scope, SignalValue, StratumWindow
from headwatch.records import Stratum

from .cases import MINUTE, MODEL, ROUTE, START, event, heads, signal
from .test_screen import KIND, RUNBOOK, incident

if TYPE_CHECKING:
    from pathlib import Path

STRATUM = Stratum(MODEL, "1", "", ROUTE, "1k-2k", "decode")
LAYERS, HEADS = 14, 3
MOVED = 12 * HEADS + 1
"""Head 1 of layer 12 falls."""


def window(minute: int) -> ObservedWindow:
    values = np.random.default_rng(minute + 1000).normal(0.5, 0.01, (len(DRIFT_FEATURES), LAYERS * HEADS))
    since = minute >= 0
    values[5, MOVED] -= 0.2 * since
    return ObservedWindow(
        minute + 1000, START + minute * MINUTE, START + (minute + 1) * MINUTE,
        strata={STRATUM: StratumWindow(values, np.full(len(DRIFT_FEATURES), 8.0), np.array([10.0]), HEADS)},
        signals={
            Scope(MODEL, "", ROUTE): {"documents_absent": SignalValue(0.8 if since else 0.02, 10.0)},
            Scope(MODEL, "", "other"): {"documents_absent": SignalValue(0.5, 10.0)},
        },
    )  # fmt: skip


WINDOWS = [window(minute) for minute in range(-20, 8) if minute != -5]
SEEN = msgspec.structs.replace(incident(), event=event(signal("documents_absent", 0.02, 0.8), heads(stratum=STRATUM.label)))


def page(one=SEEN, series: Series | None = None) -> str:
    return render(one, (), series_of(one, WINDOWS) if series is None else series, RUNBOOK)


def test_it_needs_nothing_from_anywhere():
    text = page()
    assert "<script" not in text
    assert not re.search(r"(src|href)\s*=|url\(|@import", text)
    assert "default-src 'none'" in text


def test_its_pictures_are_well_formed_and_there_is_one_for_each_thing():
    pictures = re.findall(r"<svg.*?</svg>", page(), re.DOTALL)
    for picture in pictures:
        ET.fromstring(picture)
    assert len(pictures) == 2 + 2 + 1, "two figures over time, the map of heads with its key, documents"


def test_the_map_of_heads_shows_the_head_that_moved():
    (found,) = series_of(SEEN, WINDOWS).heads
    effects = np.array(found.effects, float)
    assert effects.shape == (LAYERS, HEADS)
    assert np.unravel_index(np.argmin(effects), effects.shape) == (12, 1)
    assert effects[12, 1] < -10
    assert np.abs(np.delete(effects.ravel(), MOVED)).max() < 3
    assert (found.windows_before, found.windows_after) == (19, 8)


def test_a_line_follows_its_own_route_and_a_missing_window_is_a_gap_not_zero():
    signals, lookback = series_of(SEEN, WINDOWS).lines
    assert {value for _, value in signals.points} == {0.02, 0.8}
    assert len(signals.points) == 27
    assert lookback.name == "lookback, 1|hr|1k-2k|decode"
    nothing = ObservedWindow(1200, START + 8 * MINUTE, START + 9 * MINUTE)
    assert series_of(SEEN, [*WINDOWS, nothing]).lines[0].points[-1][1] is None


def test_series_come_from_the_history_of_that_time(tmp_path: Path):
    with History(tmp_path / "history.db") as history:
        for one in [window(minute) for minute in (-200, -3, -2, -1, 0, 1, 90)]:
            history.append(one)
    lines = read_series(tmp_path / "history.db", SEEN).lines
    assert [time_ns for time_ns, _ in lines[0].points] == [START + minute * MINUTE for minute in (-2, -1, 0, 1, 2)]


def test_without_history_there_is_a_report_without_pictures_of_it(tmp_path: Path):
    series = read_series(tmp_path / "none.db", SEEN)
    assert series == Series()
    assert "History of that time is not kept any more" in page(series=series)


def test_another_number_of_heads_since_gives_no_map(tmp_path: Path):
    other = StratumWindow(np.zeros((6, 4)), np.ones(6), np.ones(1), 2)
    changed = [*WINDOWS[:-1], msgspec.UNSET]
    changed[-1] = ObservedWindow(1300, START + 9 * MINUTE, START + 10 * MINUTE, strata={STRATUM: other})
    assert series_of(SEEN, changed).heads == ()


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ [].__class__ }}"])
def test_what_a_client_sent_is_text(evil):
    exhibits = Exhibits(documents=(DocumentExhibit(evil, evil, "1", "", 1, 0.1, 0.2),))
    text = page(msgspec.structs.replace(SEEN, exhibits=exhibits, note=evil))
    assert "<script>" not in text
    assert "<img" not in text
    assert "class 'list'" not in text


def test_kinds_of_prompts_stand_with_the_requests_and_by_route():
    rows = re.findall(r"<tr><td>.*?</tr>", page(), re.DOTALL)
    (of_request,) = [row for row in rows if "chatcmpl" in row]
    assert f'<td class="text">{KIND}</td>' in of_request
    (of_kind,) = [row for row in rows if f"<td>{KIND}</td>" in row]
    assert of_kind.endswith("<td>3</td></tr>")
    assert "Kinds of prompts" not in page(msgspec.structs.replace(SEEN, exhibits=Exhibits()))


def test_every_name_has_a_query():
    text = page()
    assert text.count("<details>") == 3 + 2 + 1 + 1, "three heads, two documents, one request, one fixed prompt"
    assert "headwatch_request_heads" in text
