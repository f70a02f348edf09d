"""What a baseline learns from windows: what is alone, what is pooled, what is left out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from headwatch.drift import learning
from headwatch.drift.learning import Span, learn
from headwatch.drift.parts import Key, sources
from headwatch.drift.short import LONG, charged
from headwatch.drift.stratum import learn_stratum
from headwatch.history.file import History
from headwatch.observed import DRIFT_FEATURES, StratumWindow

from .test_baseline_codec import same
from .windows import CHAT, CONFIG, HEADS, LAYERS, RARE, SCOPES, SEARCH, Deployment

WINDOWS = 50
POOL = Key("heads", "m|r1||pooled|decode")


@pytest.fixture
def history(tmp_path):
    with History(tmp_path / "history.db") as history:
        yield history


def filled(history: History, deployment: Deployment, change=lambda window: window) -> Span:
    for index in range(WINDOWS):
        history.append(change(deployment.window(index)))
    return Span(history, deployment.first, deployment.first + WINDOWS - 1)


def by_key(parts) -> dict:
    return {part.key: part for part in parts}


def test_every_stratum_and_scope_with_rows_enough_is_a_part(history) -> None:
    parts = by_key(learn(filled(history, Deployment()), CONFIG, 60.0))
    signals = {Key("signal", scope.label) for scope in SCOPES.values()}
    assert set(parts) == {Key("heads", CHAT.label), Key("heads", SEARCH.label), *signals}
    chat = parts[Key("heads", CHAT.label)]
    assert (chat.names, chat.heads, chat.width) == (DRIFT_FEATURES, HEADS, HEADS * LAYERS)
    assert (chat.covariates, chat.windows) == (1, WINDOWS)
    assert chat.streams.mean[0] == pytest.approx(np.linspace(0.2, 0.8, HEADS * LAYERS), abs=0.01)
    assert np.median(chat.streams.scale) == pytest.approx(0.01, rel=0.2)


def test_a_pool_does_not_move_when_its_mixture_does(history) -> None:
    """Two rare strata of very different levels: a window in which only one of them comes looks like any other."""
    other = replace(RARE, route="rarer")

    def levels(window):
        strata = dict(window.strata)
        seen = strata[RARE]
        strata[other] = replace(seen, values=seen.values + 0.15)
        return replace(window, strata=strata)

    span = filled(history, Deployment(strata=(CHAT, RARE)), levels)
    pool = by_key(learn(span, CONFIG, 60.0))[POOL]
    assert set(pool.members) == {RARE.label, other.label}
    assert set(pool.concerns()) == {Key("heads", RARE.label), Key("heads", other.label)}
    window = levels(Deployment(strata=(CHAT, RARE)).window(WINDOWS + 1))
    for left in ({RARE}, {other}, {RARE, other}):
        found = sources(replace(window, strata={name: window.strata[name] for name in left}), DRIFT_FEATURES)
        view = pool.view(found)
        level = pool.levels(np.array([window.number]), [view])[0]
        assert np.abs(level).mean() < 1.5
        assert view.rows.tolist() == [float(len(left))] * len(DRIFT_FEATURES)
    assert pool.view(sources(replace(window, strata={CHAT: window.strata[CHAT]}), DRIFT_FEATURES)) is None


def test_a_stratum_with_too_few_rows_altogether_is_not_watched(history) -> None:
    def seldom(window):
        if window.number % 7 == 0:
            return window
        return replace(window, strata={CHAT: window.strata[CHAT]})

    assert POOL not in by_key(learn(filled(history, Deployment(strata=(CHAT, RARE)), seldom), CONFIG, 60.0))


def test_the_limit_of_rows_is_the_operators(history) -> None:
    span = filled(history, Deployment(strata=(CHAT, RARE)))
    config = msgspec.structs.replace(CONFIG, min_stratum_rows=0.5)
    assert Key("heads", RARE.label) in by_key(learn(span, config, 60.0))


def test_heads_and_features_that_are_hardly_defined_are_left_out(history) -> None:
    def sparse(window):
        strata = {}
        for stratum, seen in window.strata.items():
            values = seen.values.copy()
            values[5] = np.nan  # lookback: a stratum of prompts has none
            values[:, 7] = np.nan  # a head of a layer that is never captured
            values[2, 3] = values[2, 3] if window.number % 10 == 0 else np.nan
            strata[stratum] = replace(seen, values=values)
        return replace(window, strata=strata)

    chat = by_key(learn(filled(history, Deployment(), sparse), CONFIG, 60.0))[Key("heads", CHAT.label)]
    assert chat.names == DRIFT_FEATURES[:5]
    assert 7 not in chat.chosen
    assert not chat.known[2, chat.chosen.tolist().index(3)]
    view = chat.view(sources(Deployment().window(WINDOWS), DRIFT_FEATURES))
    assert view.values.shape == (5, HEADS * LAYERS - 1)
    assert np.isnan(view.values[2, 3]), "what was hardly seen is not watched when it is there one day"
    monitor = chat.monitor()
    monitor.step(WINDOWS, *view)
    assert all(np.isfinite(evidence).all() for evidence in monitor.evidence().values())


def test_suspicious_windows_teach_nothing(history) -> None:
    first = Deployment().first
    suspect = frozenset(range(first + 10, first + 20))

    def broken(window):
        return Deployment(heads_shift=50.0, begins=0).window(window.number - first) if window.number in suspect else window

    span = filled(history, Deployment(), broken)
    clean = by_key(learn(replace(span, suspect=suspect), CONFIG, 60.0))[Key("heads", CHAT.label)]
    dirty = by_key(learn(span, CONFIG, 60.0))[Key("heads", CHAT.label)]
    assert clean.windows == WINDOWS - 10
    expected = np.linspace(0.2, 0.8, HEADS * LAYERS)
    assert np.abs(clean.streams.mean[0] - expected).max() < 0.01 < np.abs(dirty.streams.mean[0] - expected).max()


def test_a_signal_that_is_defined_no_longer_is_learned_all_the_same(history) -> None:
    """A history outlives an upgrade."""
    def older(window):
        signals = {scope: {**values, "of_old": values["document_mass"]} for scope, values in window.signals.items()}
        return replace(window, signals=signals)

    scope = by_key(learn(filled(history, Deployment(), older), CONFIG, 60.0))[Key("signal", SCOPES["chat"].label)]
    assert "of_old" in scope.names


def test_a_recording_with_faults_of_telemetry_teaches_what_is_sound(history) -> None:
    """A file from elsewhere brings no marks of suspicion; its windows say themselves what they are."""
    def faulty(window):
        broken = window.number % 5 == 0
        return replace(window, telemetry={"capture_up": 0.0 if broken else 1.0})

    chat = by_key(learn(filled(history, Deployment(), faulty), CONFIG, 60.0))[Key("heads", CHAT.label)]
    assert chat.windows == WINDOWS * 4 // 5


def test_too_few_windows_teach_nothing(history) -> None:
    deployment = Deployment()
    for index in range(learning.FEWEST_WINDOWS - 1):
        history.append(deployment.window(index))
    assert learn(Span(history, deployment.first, deployment.first + 100), CONFIG, 60.0) == []


def test_a_model_that_changed_its_shape_under_its_name_is_learned_as_it_is_now(history) -> None:
    def grown(window):
        if window.number < Deployment().first + 10:
            return window
        wider = {stratum: StratumWindow(np.repeat(seen.values, 2, axis=1), seen.rows, seen.covariates, 2 * seen.heads)
                 for stratum, seen in window.strata.items()}  # fmt: skip
        return replace(window, strata=wider)

    chat = by_key(learn(filled(history, Deployment(), grown), CONFIG, 60.0))[Key("heads", CHAT.label)]
    assert (chat.width, chat.windows) == (2 * HEADS * LAYERS, WINDOWS - 10)
    assert chat.view(sources(Deployment().window(1), DRIFT_FEATURES)) is None


def test_where_windows_close_by_count_no_cycle_of_the_day_is_learned(history) -> None:
    span = filled(history, Deployment(first=0))
    assert all(part.baseline.periods == () for part in learn(span, CONFIG, 0.0))


def test_a_signal_that_never_moved_is_no_finer_than_its_floor(history) -> None:
    def flat(window):
        signals = {scope: {**values, "instruction_focus": msgspec.structs.replace(values["instruction_focus"], mean=0.4)}
                   for scope, values in window.signals.items()}  # fmt: skip
        return replace(window, signals=signals)

    scope = by_key(learn(filled(history, Deployment(), flat), CONFIG, 60.0))[Key("signal", SCOPES["chat"].label)]
    from headwatch.drift.signals import definition_of

    place = scope.names.index("instruction_focus")
    assert scope.streams.scale[place, 0] == pytest.approx(definition_of("instruction_focus").floor)


def test_parts_are_learned_in_groups_that_fit_into_memory(history, monkeypatch) -> None:
    span = filled(history, Deployment())
    together = learn(span, CONFIG, 60.0)
    monkeypatch.setattr(learning, "_GROUP_BYTES", 1)
    assert all(same(one, other) for one, other in zip(together, learn(span, CONFIG, 60.0), strict=True))


def test_only_short_baselines_are_charged() -> None:
    random = np.random.default_rng(1)
    values = 0.5 + 0.01 * random.standard_normal((40, 2, 8))
    baseline = learn_stratum(("entropy", "distance"), np.arange(8) // 4, np.arange(40), 0.0, values, np.full((40, 2), 9.0))
    assert same(charged(baseline, LONG), baseline)
    costs = [charged(baseline, windows).heads.psi_mean for windows in (40, 100, 300, LONG)]
    assert all((shorter > longer).all() for shorter, longer in pairwise(costs))
    assert (charged(baseline, 40).heads.psi_spread > baseline.heads.psi_spread).all()


def test_a_head_that_was_constant_does_not_page_on_dust(history) -> None:
    """A maximum of exactly 1 in every window, and later once in a while the next number below it."""
    def constant(window):
        strata = {}
        for stratum, seen in window.strata.items():
            values = seen.values.copy()
            values[1] = 1.0
            strata[stratum] = replace(seen, values=values)
        return replace(window, strata=strata)

    chat = by_key(learn(filled(history, Deployment(), constant), CONFIG, 60.0))[Key("heads", CHAT.label)]
    monitor = chat.monitor()
    for index in range(100):
        view = chat.view(sources(constant(Deployment().window(WINDOWS + index)), DRIFT_FEATURES))
        view.values[1, ::2] -= 2e-5
        monitor.step(Deployment().first + WINDOWS + index, *view)
    place = chat.names.index("max_weight")
    assert monitor.evidence()["heads.mean"][place] < 10.0
