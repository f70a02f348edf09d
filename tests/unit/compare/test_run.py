"""What a reader of the verdict would notice: equal sides are the same, and what was changed is named."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from headwatch.compare.report import render
from headwatch.compare.run import Settings, compared
from headwatch.errors import CommandError
from headwatch.incident.triage import triage

from .scenes import STREAMS, Scene, side

QUICK = Settings(labellings=799)
SIGNALS = {"grounding_ratio": 0.6, "instruction_focus": 0.3, "capture_by_document": 1.0}
HEALTHY = {"canary_failed": False, "signals": SIGNALS}


def held(first=None, settings=QUICK, **second):
    scenes = Scene(seed=1, **{**HEALTHY, **(first or {})}), Scene(seed=2, first=100, **{**HEALTHY, **second})
    return compared(side(scenes[0], "A"), side(scenes[1], "B"), settings, triage)


def test_equal_sides_are_the_same():
    found = held()
    assert not found.different
    assert found.verdict is None
    assert found.p_value > 0.02
    assert found.heads_named == 0


def test_of_twenty_equal_pairs_hardly_any_differs():
    """Level 0.02: more than three of twenty have a probability of 1 in 1,500."""
    quick = Settings(labellings=499)
    scenes = [(Scene(seed=seed, memory=0.3), Scene(seed=seed + 1, memory=0.3)) for seed in range(50_000, 50_040, 2)]
    different = [compared(side(first), side(second), quick, triage).different for first, second in scenes]
    assert sum(different) <= 3


@pytest.mark.parametrize(
    ("change", "drift_class", "cause"),
    [
        ({"canary_failed": True}, "model", "weights"),
        ({"templates": {"bb": 1.0}}, "model", "system_prompt"),
        ({"signals": {**SIGNALS, "grounding_ratio": 0.4}}, "retrieval", "wrong_documents"),
        ({"signals": {**SIGNALS, "instruction_focus": 0.2, "capture_by_document": 2.5}}, "injection", "injection"),
        ({"telemetry": {"capture_up": 1.0, "sample_rate": 0.3}}, "telemetry", "sampling_changed"),
        ({"routes": {"support": 0.1, "search": 0.9}}, "traffic", "route_mix"),
        ({"shift": 1.0}, "traffic", "topics"),
        ({"length": 9.8, "slope": 2.0}, "traffic", "length"),
    ],
)
def test_the_kind_of_what_was_changed(change, drift_class, cause):
    found = held(**change)
    assert found.different
    assert (found.verdict.drift_class, found.verdict.cause) == (drift_class, cause)


def test_one_changed_head_is_named_with_its_effect_and_an_interval_that_holds_it():
    found = held(shift=2.5, shifted=(7,), common=0.0)
    named = [head for head in found.heads if head.p_value <= 0.02]
    assert {(head.layer, head.head) for head in named} == {(1, 3)}
    assert all(head.low < 0.025 < head.high and head.effect == pytest.approx(2.5, abs=0.9) for head in named)


def test_a_small_shift_of_all_heads_is_seen_though_no_head_shows_it():
    many = {"common": 0.0, "streams": 120, "heads": 40}
    found = held(many, shift=0.15, **many)
    assert found.families["pattern"] <= 0.02
    assert found.families["heads"] > 0.02


def test_a_shift_of_the_stated_size_is_found_about_as_often_as_stated():
    """Twelve pairs with the shift that should be found in 80 % of them, within 3 standard errors."""
    quick = Settings(labellings=499)
    stated = {power.feature: power for power in held(settings=quick).power}
    size = np.median([power.all_heads for power in stated.values()])


    def found(shift):
        pairs = [(Scene(seed=seed), Scene(seed=seed + 1, shift=shift)) for seed in range(600, 624, 2)]
        return np.mean([compared(side(one), side(other), quick, triage).families["pattern"] <= 0.02 for one, other in pairs])

    assert found(size) >= 0.8 - 3 * 0.115, "all six features shift here, so that more is found than for one"
    assert found(size / 4) < 0.5


def test_strata_of_one_side_alone_are_listed_and_not_compared():
    found = held(routes={"support": 0.6, "mail": 0.4})
    assert found.strata.compared == ("support|512-1k|decode",)
    assert found.strata.only_first == ("search|512-1k|decode",)
    assert found.strata.only_second == ("mail|512-1k|decode",)


def test_without_a_stratum_in_common_the_rest_is_still_compared():
    """Without documents prompts are so short that they are in other strata: that there are none must be said all the same."""
    found = held(routes={"mail": 1.0})
    assert found.strata.compared == ()
    assert (found.verdict.drift_class, found.verdict.cause) == ("traffic", "route_mix")
    assert any("heads were not compared" in warning for warning in found.warnings)
    assert "heads were not compared" in render(found)


def test_sides_with_nothing_in_common_are_one_clear_error():
    sides = [replace(side(scene), traffic={}, signals={}) for scene in (Scene(), Scene(routes={"mail": 1.0}))]
    with pytest.raises(CommandError, match="no stratum in common, so nothing may be compared"):
        compared(*sides, QUICK, triage)


def test_figures_that_are_counted_are_not_explained_away_by_the_length_that_they_make():
    """Truncated documents make shorter prompts; the tokens of the documents fall with the length, and are named."""
    whole, cut = ({**SIGNALS, "document_tokens": tokens} for tokens in (300.0, 100.0))
    found = held({"signals": whole}, signals=cut, length=8.2)
    assert "document_tokens" in {signal.name for signal in found.signals if signal.p_value <= 0.02}


def test_another_revision_is_compared_and_named():
    found = held(revision="r2")
    assert not found.different
    assert (found.first.revisions, found.second.revisions) == (("r1",), ("r2",))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"windows": 3}, "too few to tell a difference"),
        ({"streams": STREAMS * 2, "heads": 4}, "different shapes: 3 layers of 4 heads"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_error(change, said):
    first = {"windows": 4} if "windows" in change else {}
    with pytest.raises(CommandError, match=re.escape(said)):
        held(first, **change)


def test_sides_that_both_fail_their_canaries_alike_do_not_differ_in_them():
    """Both were held against an older fingerprint, and deviate from it by the same."""
    found = held({"canary_failed": True}, canary_failed=True)
    assert not found.different


def test_without_canaries_the_reader_is_told_what_cannot_be_told():
    found = held({"canary_failed": None}, canary_failed=None, shift=1.0)
    assert any("canary" in warning for warning in found.warnings)


def test_the_layers_that_moved_stand_out():
    """Heads 4 to 7 are layer 1 of three."""
    text = render(held({"common": 0.0}, shift=2.5, shifted=(4, 5, 6, 7), common=0.0))
    line = next(line for line in text.splitlines() if line.startswith("entropy") and "in layer" in line)
    assert re.search(r"[▁▂▃]█[▁▂▃] .* in layer 1$", line)


def test_the_verdict_comes_first_and_the_power_statement_last():
    text = render(held(shift=1.0, shifted=(7,)))
    assert text.startswith("DIFFERENT  traffic (topics)")
    assert "heads that differ" in text
    assert text.index("what this data would have shown") > text.index("signals of retrieval")
    assert max(map(len, text.splitlines())) < 180
