"""The second opinion of ``headwatch verify``: right on paper, and able to say no."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwatch.capture.kernels.oracle import summarise, weights
from headwatch.capture.layers.attention import AttentionRule, row_spans
from headwatch.errors import CommandError
from headwatch.model import FEATURES, Document, RequestContext, Span
from headwatch.verify.comparison import CapturedRow, Comparison
from headwatch.verify.engine_attention import EngineAttention, attend
from headwatch.verify.reference import row_reference
from headwatch.verify.rules import LayerRule
from headwatch.verify.run import generated_tokens

CONTEXT = RequestContext(
    request_id="r-1",
    prompt_tokens=4,
    spans=[Span("system", 0, 1), Span("document", 1, 3, 0), Span("user", 3, 4)],
    documents=[Document("a")],
    engine_id="r-1-abc",
)
ROW = np.array([[0.5, 0.125, 0.125, 0.0, 0.125, 0.125]])  # position 5: two generated positions, 4 and 5
RULES = {0: LayerRule(1.0), 1: LayerRule(1.0)}


def test_features_of_a_row_worked_by_hand():
    """Every feature of one generated row equals its value on paper."""
    row = row_reference(ROW, 5, CONTEXT)
    assert row.entropy[0] == pytest.approx((0.5 * np.log(2) + 4 * 0.125 * np.log(8)) / np.log(6))
    assert row.max_weight[0] == 0.5
    assert row.sink_mass[0] == 0.5
    assert row.local_mass[0] == 1.0
    assert row.distance[0] == pytest.approx((0.5 * 5 + 0.125 * 4 + 0.125 * 3 + 0.125 * 1) / 5)
    assert row.lookback.value[0] == 0.5  # 0.125 a token on both sides
    assert row.lookback.denominator[0] == 0.25
    assert row.document_mass.value[0] == 0.5  # 0.25 of what the sink leaves
    assert row.span_mass[:, 0].tolist() == [0.5, 0.25, 0.0, 0.25]


def test_local_mass_covers_the_last_32_positions():
    """Of 40 positions with equal weight, 32 are local."""
    row = row_reference(np.full((1, 40), 1 / 40), 39, CONTEXT)
    assert row.local_mass[0] == pytest.approx(32 / 40)


def test_the_first_position_has_neither_entropy_nor_distance():
    """A row that sees itself alone cannot spread its attention, and says so."""
    row = row_reference(np.ones((2, 1)), 0, CONTEXT)
    assert np.isnan(row.entropy).all()
    assert np.isnan(row.distance).all()
    assert row.sink_mass.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("position", "spans"),
    [(3, CONTEXT.spans), (5, [Span("user", 0, 4)])],
    ids=["no generated text is visible", "no document"],
)
def test_lookback_is_undefined_rather_than_zero_or_one(position, spans):
    """Without one of its two sides there is no ratio."""
    context = RequestContext(request_id="r", prompt_tokens=4, spans=spans)
    row = row_reference(np.full((1, position + 1), 1 / (position + 1)), position, context)
    assert np.isnan(row.lookback.value).all()


def test_document_mass_is_undefined_before_the_first_document():
    """A row that stands before the documents does not ignore them."""
    row = row_reference(np.ones((1, 1)), 0, CONTEXT)
    assert np.isnan(row.document_mass.value).all()


def test_hidden_positions_do_not_count_as_visible():
    """Under a window of 2, entropy is normalised by ln 2 and documents outside it are not there."""
    a = np.array([[0.0, 0.0, 0.0, 0.0, 0.5, 0.5]])
    row = row_reference(a, 5, CONTEXT, first=4)
    assert row.entropy[0] == pytest.approx(1.0)
    assert row.distance[0] == pytest.approx(0.5)
    assert np.isnan(row.lookback.value[0])


def test_what_a_row_lacks_to_one_is_the_learned_sink():
    """The mass that a learned sink took belongs to the sink."""
    row = row_reference(np.array([[0.25, 0.5]]), 1, CONTEXT)
    assert row.sink_mass[0] == pytest.approx(0.5)


def test_a_row_of_the_wrong_length_is_refused():
    """A shifted row is an error, not an approximation."""
    with pytest.raises(ValueError, match="sees 5 positions, but has 6"):
        row_reference(ROW, 4, CONTEXT)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    prompt=st.integers(3, 60),
    generated=st.integers(0, 8),
    window=st.sampled_from([0, 1, 5, 40]),
)
def test_the_worker_and_the_second_opinion_agree(seed, prompt, generated, window):
    """Two implementations that share no code give the same features on random attention."""
    generator = torch.Generator().manual_seed(seed)
    first = int(torch.randint(1, prompt - 1, (1,), generator=generator))
    cut = (first, int(torch.randint(first + 1, prompt, (1,), generator=generator)))
    context = RequestContext(
        request_id="r",
        prompt_tokens=prompt,
        spans=[Span("system", 0, cut[0]), Span("document", cut[0], cut[1], 0), Span("user", cut[1], prompt)],
        documents=[Document("a")],
    )
    n = prompt + generated
    query = torch.randn(1, 4, 8, generator=generator) * 2
    keys = torch.randn(n, 2, 8, generator=generator)
    rule = AttentionRule(scale=0.4, window=window)
    positions = torch.tensor([n - 1])
    table = row_spans(context.spans)
    features, mass = summarise(*weights(query, keys, positions, rule), positions, table, rule)

    a = attend(query[0].double().numpy(), keys.double().numpy(), LayerRule(0.4, window))
    comparison = Comparison()
    row = CapturedRow(context, n - 1, (0,), features.numpy(), mass[0, :, None].numpy())
    comparison.add("r", row, {0: LayerRule(0.4, window)}, lambda *_: a)
    assert max(comparison.max_abs_error.values()) < 2e-5
    assert not any(comparison.undefined_mismatches.values())


def test_an_exact_row_passes():
    """Nothing is wrong with a row that equals its reference."""
    comparison = Comparison()
    comparison.add("r-1", captured(), RULES, lambda *_: ROW)
    assert comparison.passes(1e-4)
    assert comparison.compared["span_mass"] == 8  # 4 spans, 2 layers, 1 head


def test_one_wrong_value_is_found_and_placed():
    """An error in one feature of one layer fails the comparison, and its place is named."""
    row = captured()
    row.features[1, 0, FEATURES.index("local_mass")] -= 0.01
    comparison = Comparison()
    comparison.add("r-1", row, RULES, lambda *_: ROW)
    assert not comparison.passes(1e-4)
    assert comparison.max_abs_error["local_mass"] == pytest.approx(0.01, abs=1e-6)
    assert comparison.layers_over(1e-4) == [1]
    assert (comparison.worst["local_mass"].request, comparison.worst["local_mass"].layer) == ("r-1", 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_fails(value):
    """NaN where a number is defined, or an infinite value, is an error and not a gap."""
    row = captured()
    row.features[0, 0, FEATURES.index("lookback")] = value
    comparison = Comparison()
    comparison.add("r-1", row, RULES, lambda *_: ROW)
    assert not comparison.passes(1e-4)


def test_a_ratio_with_a_tiny_denominator_is_left_out():
    """A quotient of two masses below 0.01 magnifies rounding: it proves nothing either way."""
    a = np.array([[0.992, 0.002, 0.002, 0.0, 0.002, 0.002]])
    row = captured(a)
    row.features[:, :, FEATURES.index("lookback")] += 0.1
    comparison = Comparison()
    comparison.add("r-1", row, RULES, lambda *_: a)
    assert comparison.compared["lookback"] == 0
    assert comparison.max_abs_error["lookback"] == 0.0


def test_nothing_compared_is_no_pass():
    """A comparison without rows has proved nothing."""
    assert not Comparison().passes(1e-4)


def test_the_scale_matters_to_the_second_opinion():
    """Attention from the same queries and keys under a doubled scale is told apart by far more than the bound."""
    rng = np.random.default_rng(3)
    query, keys = rng.normal(size=(4, 8)), rng.normal(size=(20, 2, 8))
    difference = np.abs(attend(query, keys, LayerRule(0.35)) - attend(query, keys, LayerRule(0.7))).max()
    assert difference > 0.02


def test_query_heads_share_keys_in_runs():
    """With 4 query and 2 key heads, heads 0 and 1 read key head 0 (grouped-query attention)."""
    keys = np.zeros((2, 2, 1))
    keys[1] = [[np.log(3)], [0.0]]
    a = attend(np.ones((4, 1)), keys, LayerRule(1.0))
    np.testing.assert_allclose(a[:, 1], [0.75, 0.75, 0.5, 0.5])


def test_observed_rows_go_to_their_own_request():
    """Rows of two requests in one step are each attended with their own keys."""
    observer = EngineAttention({0: LayerRule(1.0)})
    keys = [torch.zeros(3, 1, 1), torch.tensor([[[0.0]], [[float(np.log(3))]]])]
    observer.observe(0, [("a", 1), ("a", 2), ("b", 1)], torch.ones(3, 1, 1), keys, 1.0)
    np.testing.assert_allclose(observer.weights("a", 0, 1), [[0.5, 0.5]])
    np.testing.assert_allclose(observer.weights("a", 0, 2), [[1 / 3] * 3])
    np.testing.assert_allclose(observer.weights("b", 0, 1), [[0.25, 0.75]], rtol=1e-6)


@pytest.mark.parametrize("rows", [0, -1, 10_000_000])
def test_a_number_of_rows_out_of_range_is_one_clear_error(rows):
    """The user is told the range."""
    with pytest.raises(CommandError, match="rows must lie between 1 and"):
        generated_tokens(rows)


def captured(a=ROW):
    """Return a row of two layers that equals its reference, to float32."""
    expected = row_reference(a, 5, CONTEXT)
    values = [getattr(expected, name) for name in FEATURES[:-1]] + [expected.lookback.value]
    features = np.array(values, np.float32).T[None].repeat(2, axis=0)  # [L, H, F]
    return CapturedRow(CONTEXT, 5, (0, 1), features, expected.span_mass[:, None].repeat(2, axis=1).astype(np.float32))
