"""The oracle against attention written out by hand in float64."""

from __future__ import annotations

import math

import pytest
import torch

from headwatch.capture.kernels.oracle import summarise, value_mass, weights
from headwatch.capture.layers.attention import AttentionRule, RowSpans, row_spans
from headwatch.model import FEATURES, Span

from .tensors import assert_close

PLAIN = AttentionRule(1.0)


def spans(*kinds: tuple[int, int, bool]) -> RowSpans:
    return row_spans([Span("document" if is_document else "user", start, end) for start, end, is_document in kinds])


def by_hand(query: torch.Tensor, keys: torch.Tensor, position: int, rule: AttentionRule) -> list[list[float]]:
    """One row, head by head, position by position: slow and obvious."""
    heads, group = query.shape[0], query.shape[0] // keys.shape[1]
    result = []
    for head in range(heads):
        logits = []
        for j in range(keys.shape[0]):
            hidden_chunk = rule.chunk and j // rule.chunk != position // rule.chunk
            if rule.causal and (j > position or (rule.window and position - j >= rule.window) or hidden_chunk):
                logits.append(-math.inf)
                continue
            logit = float(query[head].double() @ keys[j, head // group].double()) * rule.scale
            if rule.softcap:
                logit = rule.softcap * math.tanh(logit / rule.softcap)
            if rule.alibi_slopes is not None:
                logit -= float(rule.alibi_slopes[head]) * (position - j)
            logits.append(logit)
        extra = [] if rule.sinks is None else [float(rule.sinks[head])]
        largest = max(logits + extra)
        total = sum(math.exp(x - largest) for x in logits + extra)
        result.append([math.exp(x - largest) / total for x in logits])
    return result


RULES = {
    "plain": AttentionRule(0.3),
    "softcap": AttentionRule(0.9, softcap=2.0),
    "window": AttentionRule(0.3, window=5),
    "chunk": AttentionRule(0.3, chunk=4),
    "cross": AttentionRule(0.3, causal=False),
    "alibi": AttentionRule(0.3, alibi_slopes=torch.tensor([0.5, 0.25, 0.125, 0.0625])),
    "sinks": AttentionRule(0.3, sinks=torch.tensor([0.1, 2.0, -1.0, 0.5])),
}


@pytest.mark.parametrize("kv_heads", [1, 2, 4], ids=["mqa", "gqa", "mha"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_weights_equal_attention_written_out_by_hand(rule: AttentionRule, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(3, 4, 8, generator=generator)
    keys = torch.randn(12, kv_heads, 8, generator=generator)
    positions = torch.tensor([3, 10, 11])
    attention, sink = weights(query, keys, positions, rule)
    for row, position in enumerate(positions.tolist()):
        expected = torch.tensor(by_hand(query[row], keys, position, rule))
        assert_close(attention[row], expected, atol=2e-6, rtol=0)
        total = attention[row].sum(-1) + sink[row]
        assert_close(total, torch.ones(4), atol=1e-5, rtol=0)


def test_features_of_a_row_worked_out_by_hand() -> None:
    """Eight positions: system 0-1, a document 2-5, generated 6-7; one head spreads .1 .1 .2 .2 .1 .1 .1 .1."""
    attention = torch.tensor([[[0.1, 0.1, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1]]])
    table = spans((0, 2, False), (2, 6, True))
    features, mass = summarise(attention, torch.zeros(1, 1), torch.tensor([7]), table, PLAIN)
    value = dict(zip(FEATURES, features[0, 0].tolist(), strict=True))
    assert value["entropy"] == pytest.approx(-(6 * 0.1 * math.log(0.1) + 2 * 0.2 * math.log(0.2)) / math.log(8))
    assert value["max_weight"] == pytest.approx(0.2)
    assert value["sink_mass"] == pytest.approx(0.1)
    assert value["local_mass"] == pytest.approx(1.0)
    assert value["distance"] == pytest.approx((0.7 + 0.6 + 1.0 + 0.8 + 0.3 + 0.2 + 0.1) / 7)
    assert value["lookback"] == pytest.approx((0.6 / 4) / (0.6 / 4 + 0.2 / 2))
    assert_close(mass[0, :, 0], torch.tensor([0.2, 0.6, 0.2]))


def test_what_is_undefined_is_nan_and_never_zero() -> None:
    attention = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]])
    features, _ = summarise(attention, torch.zeros(2, 1), torch.tensor([0, 1]), spans((0, 2, True)), PLAIN)
    first = dict(zip(FEATURES, features[0, 0].tolist(), strict=True))
    assert math.isnan(first["entropy"])
    assert math.isnan(first["distance"])
    assert math.isnan(features[1, 0, FEATURES.index("lookback")]), "no generated text is visible to the last prompt row"


def test_a_window_hides_position_zero_from_the_sink_mass() -> None:
    query, keys = torch.zeros(1, 1, 4), torch.zeros(6, 1, 4)
    attention, sink = weights(query, keys, torch.tensor([5]), rule := AttentionRule(1.0, window=3))
    features, _ = summarise(attention, sink, torch.tensor([5]), spans((0, 6, False)), rule)
    value = dict(zip(FEATURES, features[0, 0].tolist(), strict=True))
    assert value["sink_mass"] == 0.0
    assert value["entropy"] == pytest.approx(1.0), "three visible positions share the weight evenly"


def test_masses_of_all_spans_add_up_to_all_attention() -> None:
    generator = torch.Generator().manual_seed(2)
    attention = torch.softmax(torch.randn(4, 3, 20, generator=generator), -1)
    table = spans((0, 4, False), (4, 9, True), (9, 16, True))
    _, mass = summarise(attention, torch.zeros(4, 3), torch.full((4,), 19), table, PLAIN)
    assert_close(mass.sum(1), torch.ones(4, 3))


def test_a_head_that_looks_at_a_span_but_carries_nothing_from_it_is_told_apart() -> None:
    """Both spans get half of the attention; the values of the first are zero."""
    values = torch.tensor([0.0, 0.0, 3.0, 3.0]).reshape(4, 1, 1).expand(4, 1, 4) / 2  # norms 0 0 3 3
    table = spans((0, 2, True), (2, 4, False))
    attention = torch.full((1, 2, 4), 0.25)
    _, mass = summarise(attention, torch.zeros(1, 2), torch.tensor([3]), table, PLAIN)
    carried = value_mass(attention, values, table)
    assert_close(mass[0, :, 0], torch.tensor([0.5, 0.5, 0.0]))
    assert_close(carried[0, :, 0], torch.tensor([0.0, 1.5, 0.0]))


@pytest.mark.parametrize("parts", [[(1, 4)], [(0, 4), (5, 8)], [(0, 4), (3, 8)], [(0, 4), (4, 4)]])
def test_spans_that_are_no_partition_are_refused(parts: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="follow each other"):
        row_spans([Span("user", start, end) for start, end in parts])
