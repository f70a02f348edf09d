"""What is found, where it begins, and what it looks like: a synthetic change for every hint, and none where nothing changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headwatch.canary.compare import Comparison, as_run, compare, compare_fingerprints
from headwatch.canary.deviation import deviation
from headwatch.canary.explain import explain
from headwatch.canary.fingerprint import learn
from headwatch.canary.noise import FALSE_ALARM, ROUNDING, score_limit
from headwatch.canary.prompts import PromptSet
from headwatch.canary.signature import Run
from headwatch.canary.student import quantile, upper_tail
from headwatch.errors import CanaryError
from headwatch.model import CANARY_ROWS, FEATURES

from .models import HEADS, LAYERS, PROMPTS, noisy, run, worker

SHAPE = (CANARY_ROWS, LAYERS, HEADS, len(FEATURES))
EXACT = learn([run()] * 3, PROMPTS, 7)


EVERY = slice(None)


def moved(by: float, layers: slice | int = EVERY, heads: slice | int = EVERY, seed: int = 3) -> np.ndarray:
    """Return a change that begins in some layers and heads, random in sign."""
    change = np.zeros(SHAPE)
    change[:, layers, heads] = np.random.default_rng(seed).normal(0, 1, SHAPE)[:, layers, heads]
    return change * by


def growing(by: float) -> np.ndarray:
    """Return a change of every layer that adds up with depth."""
    return moved(by) * (1 + 3 * np.arange(LAYERS))[None, :, None, None]


def head_first() -> np.ndarray:
    change = moved(0.03, slice(3, None))
    change[:, 3] = 0
    return change + moved(0.4, 2, 1)


CHANGES = {
    "weights": (moved(1e-3, slice(4, None)), 4),
    "layer": (moved(0.03, slice(2, None)), 2),
    "head": (head_first(), 2),
    "precision": (growing(1e-4), 0),
}


@pytest.mark.parametrize(("hint", "change", "layer"), [(hint, *rest) for hint, rest in CHANGES.items()], ids=list(CHANGES))
def test_a_change_is_found_in_one_run_and_named_by_its_shape(hint: str, change: np.ndarray, layer: int) -> None:
    found = compare(EXACT, run(change=change))
    assert (found.failed, found.hint, found.earliest_layer) == (True, hint, layer)
    assert all(item.failed and item.hint == hint and item.earliest_layer == layer for item in found.exhibits)
    assert [item.deviation for item in found.exhibits] == sorted((item.deviation for item in found.exhibits), reverse=True)
    worst = found.exhibits[0].heads[0]
    assert worst.layer == layer
    if hint == "head":
        assert [(head.layer, head.head) for head in found.exhibits[0].heads] == [(2, 1)], "no other of its layer moved"
    row = np.abs(change[:, layer, worst.head, FEATURES.index(worst.feature)])
    assert np.abs(row - abs(worst.after - worst.before)).min() < 1e-6, "before and after are those of an element that moved"


def test_the_same_model_is_the_same_and_rounding_is_no_change() -> None:
    for change in (0.0, moved(ROUNDING / 10)):
        found = compare(EXACT, run(change=change))
        assert (found.failed, found.hint, found.earliest_layer, found.false_alarm) == (False, "", None, 0.0)
        assert not any(item.failed or item.heads or item.hint for item in found.exhibits)
    assert compare(EXACT, run(change=moved(ROUNDING * 3))).failed


@pytest.mark.parametrize("fields", [{"prompt_tokens": 21}, {"digest": "e"}])
def test_other_tokens_are_a_changed_template_and_layers_are_not_compared(fields: dict[str, object]) -> None:
    found = compare(EXACT, run(change=moved(0.3), **fields))
    assert (found.failed, found.hint, found.earliest_layer) == (True, "template", None)
    assert all(item.heads == () for item in found.exhibits)


def test_a_changed_template_hides_no_changed_weights_where_some_prompt_came_to_the_same_tokens() -> None:
    mixed = {name: replace(item, prompt_tokens=21) if name == "one" else item for name, item in run().signatures.items()}
    found = compare(EXACT, Run(5, mixed))
    assert (found.hint, "not that alone" in found.note, sum(item.failed for item in found.exhibits)) == ("template", False, 1)
    weights = run(change=moved(1e-3, slice(4, None))).signatures
    mixed = {name: replace(item, prompt_tokens=21) if name == "one" else item for name, item in weights.items()}
    found = compare(EXACT, Run(5, mixed))
    assert "not that alone: with the same tokens as before, two, three depart too" in found.note
    assert all(item.failed for item in found.exhibits)


def test_another_adapter_is_named_though_everything_moves() -> None:
    found = compare(EXACT, run(change=growing(1e-3), adapter="french"))
    assert (found.failed, found.hint) == (True, "adapter")


def test_a_model_of_another_shape_is_another_model() -> None:
    shorter = {name: replace(item, worker=worker(layers=3), values=item.values[:, :3])
               for name, item in run().signatures.items()}  # fmt: skip
    found = compare(EXACT, Run(5, shorter))
    assert (found.failed, found.hint) == (True, "weights")
    assert "6 layers" in found.note


def test_what_else_is_different_is_said_and_is_no_failure() -> None:
    changed = {name: replace(item, worker=worker(engine_version="0.33")) for name, item in run().signatures.items()}
    found = compare(EXACT, Run(5, changed))
    assert not found.failed
    assert found.differs == {"engine_version": ("0.32", "0.33")}


def test_layers_that_are_not_captured_any_more_are_left_out() -> None:
    """A refused layer is a fault of telemetry, not a change of the model."""
    change = np.zeros(SHAPE)
    change[:, 2] = np.nan
    found = compare(EXACT, run(change=change))
    assert not found.failed
    assert found.layers[2] is None
    assert (found.whole, found.missing_layers) == (False, (2,)), "but it is said, and nobody is told that nothing changed"
    assert "layers 2: the fingerprint has them" in explain(found)
    assert compare(EXACT, run(change=change + moved(0.03, slice(4, None)))).earliest_layer == 4


def test_layers_that_a_fingerprint_never_had_are_not_missed_and_none_in_common_is_no_comparison() -> None:
    """Whatever the candidate does in layers that the other side has not captured, nobody could tell."""
    late, early = np.zeros(SHAPE), np.zeros(SHAPE)
    late[:, :3], early[:, 3:] = np.nan, np.nan
    of_early = learn([run(change=early)] * 3, PROMPTS, 7)
    assert compare(of_early, run()).whole
    with pytest.raises(CanaryError, match="no layer of the fingerprint was captured in every prompt; it has 0, 1, 2"):
        compare(of_early, run(change=late + 0.4))
    with pytest.raises(CanaryError, match="no layer"):
        compare_fingerprints(of_early, learn([run(change=late + 0.4)] * 3, PROMPTS, 8))


def test_prompts_that_were_not_read_are_named_and_not_compared() -> None:
    whole = run()
    partial = Run(5, {"one": whole.signatures["one"]}, {"two": "incomplete", "three": "no rows"})
    found = compare(EXACT, partial)
    assert (found.failed, [item.prompt for item in found.exhibits]) == (False, ["one"])
    assert set(found.incomplete) == {"two", "three"}
    assert not found.whole
    assert explain(found).startswith("NOT ALL of it was compared, so this is no verdict: 1 of 3 prompts")
    unsent = compare(EXACT, Run(5, {"one": whole.signatures["one"]}))
    assert (unsent.whole, set(unsent.incomplete)) == (False, {"two", "three"}), "also where nothing says why"
    with pytest.raises(CanaryError, match="nothing was captured"):
        compare(EXACT, Run(5))


def test_two_fingerprints_are_held_against_each_other() -> None:
    assert not compare_fingerprints(EXACT, learn([run()], PROMPTS, 8)).failed
    changed = learn([run(change=moved(1e-3, slice(4, None)))], PROMPTS, 8)
    assert compare_fingerprints(EXACT, changed).hint == "weights"
    others = PromptSet("test-2", PROMPTS.prompt)
    with pytest.raises(CanaryError, match="different prompts"):
        compare_fingerprints(EXACT, learn([run()], others, 8))
    assert as_run(EXACT).worker is not None


NOISY = learn([noisy(seed) for seed in range(20)], PROMPTS, 7)


def test_measured_noise_is_no_change() -> None:
    """200 runs of an unchanged model at a promise of one alarm in 10,000: more than one would be too many."""
    found = [compare(NOISY, noisy(seed)) for seed in range(1000, 1200)]
    assert sum(item.failed for item in found) <= 1
    assert found[0].false_alarm == FALSE_ALARM
    assert not found[0].exact


def test_the_promise_is_kept_where_it_can_be_counted() -> None:
    """The same scores at one in a hundred: between 0 and 8 of 200 runs (a Poisson of mean 2 leaves that once in 5,000)."""
    limit = quantile(1 - 0.01 / LAYERS, NOISY.runs - 1)
    scores = [deviation(NOISY, noisy(seed)).scores for seed in range(2000, 2200)]
    assert sum(bool((np.nan_to_num(item) > limit).any()) for item in scores if item is not None) <= 8


def test_a_small_change_shows_under_noise_as_the_layer_where_it_begins() -> None:
    """One standard deviation of the noise, in every element from layer 3 on."""
    found = compare(NOISY, noisy(99, change=moved(1e-3, slice(3, None))))
    assert (found.failed, found.earliest_layer, found.hint) == (True, 3, "weights")
    one_head = moved(0.2, 2, 1)
    found = compare(NOISY, noisy(98, change=one_head))
    assert (found.failed, found.earliest_layer, found.hint) == (True, 2, "head")
    assert (found.exhibits[0].heads[0].layer, found.exhibits[0].heads[0].head) == (2, 1)


def test_runs_of_a_noisier_engine_depart() -> None:
    assert compare(NOISY, noisy(97, scale=3e-3)).failed


TABLE = [(0.975, 10, 2.228139), (0.995, 3, 5.840909), (0.999, 1, 318.3088)]


@pytest.mark.parametrize(("probability", "freedom", "value"), TABLE)
def test_the_quantiles_of_students_t_are_those_of_the_tables(probability: float, freedom: int, value: float) -> None:
    assert quantile(probability, freedom) == pytest.approx(value, rel=1e-6)
    assert upper_tail(value, freedom) == pytest.approx(1 - probability, rel=1e-5)
    assert upper_tail(-value, freedom) == pytest.approx(probability, rel=1e-5)


def test_few_runs_make_the_limit_large_and_a_quantile_needs_its_arguments() -> None:
    assert score_limit(8, 30) > score_limit(20, 30) > score_limit(100, 30)
    for wrong in ((0.4, 3), (1.0, 3), (0.9, 0)):
        with pytest.raises(ValueError, match="no quantile"):
            quantile(*wrong)


@pytest.mark.parametrize("found", [compare(EXACT, run(change=item[0])) for item in CHANGES.values()]
                         + [compare(EXACT, run(digest="e")), compare(EXACT, run(adapter="b"))])  # fmt: skip
def test_an_explanation_says_what_where_and_how_much(found: Comparison) -> None:
    text = explain(found)
    assert text.startswith("NOT the model that was pinned: 3 of 3 prompts")
    assert f"It looks like: {found.hint}." in text
    assert found.note in text
    if found.earliest_layer is not None:
        assert "← first" in text
        assert f"from layer {found.earliest_layer}" in text
    assert max(map(len, text.splitlines())) < 220


def test_an_explanation_of_no_change_is_short() -> None:
    text = explain(compare(EXACT, run()))
    assert text.startswith("The model that was pinned, to rounding: 3 prompts")
    assert len(text.splitlines()) == 5
    assert "1 run in 10,000" in explain(compare(NOISY, noisy(1)))
