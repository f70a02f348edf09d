"""A layer is believed only where softmax(QK)V matches the kernel, and the check can fail."""

from __future__ import annotations

import pytest
import torch

from headwatch.capture.cache.reader import CpuVectorReader
from headwatch.capture.kernels.oracle import weights
from headwatch.capture.layers.attention import AttentionRule
from headwatch.capture.layers.selfcheck import CHECKS, MIN_VISIBLE, LayerTrust
from headwatch.errors import CaptureRefused


def scene(n: int = 40, rule: AttentionRule | None = None) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(CHECKS, 4, 8, generator=generator)
    keys, values = torch.randn(n, 2, 8, generator=generator), torch.randn(n, 2, 8, generator=generator)
    positions = torch.arange(n - CHECKS, n)
    attention, _ = weights(query, keys, positions, rule or AttentionRule(0.35))
    output = torch.einsum("rkgn,nkd->rkgd", attention.reshape(CHECKS, 2, 2, n), values).reshape(CHECKS, 4, 8)
    return query, keys, values, positions, output


def check(keys: torch.Tensor, rule: AttentionRule, n: int = 40) -> LayerTrust:
    query, _, values, positions, output = scene(n)
    attention, _ = weights(query, keys, positions, rule)
    trust = LayerTrust()
    trust.check(attention, values, output, n)
    return trust


def test_a_layer_that_matches_earns_trust() -> None:
    assert check(scene()[1], AttentionRule(0.35)).earned


@pytest.mark.parametrize(
    ("keys", "rule"),
    [
        (scene()[1], AttentionRule(0.35 * 1.1)),
        (scene()[1].roll(1, 0), AttentionRule(0.35)),
        (scene()[1], AttentionRule(0.35, window=20)),
        (scene()[1], AttentionRule(0.35, softcap=1.0)),
        (scene()[1].flip(1), AttentionRule(0.35)),
        (torch.full((40, 2, 8), float("nan")), AttentionRule(0.35)),
    ],
    ids=["scale", "shifted positions", "window", "softcap", "swapped heads", "nan"],
)
def test_a_planted_fault_is_refused(keys: torch.Tensor, rule: AttentionRule) -> None:
    with pytest.raises(CaptureRefused, match="kernel's output") as refusal:
        check(keys, rule)
    assert refusal.value.reason == "self_check"


def test_a_short_row_proves_too_little_to_export() -> None:
    query, keys, values, positions, output = scene(MIN_VISIBLE - 1)
    trust = LayerTrust()
    trust.check(weights(query, keys, positions, AttentionRule(0.35))[0], values, output, MIN_VISIBLE - 1)
    assert not trust.exportable


def test_an_unknown_dtype_is_refused() -> None:
    query, keys, values, positions, output = scene()
    with pytest.raises(CaptureRefused, match="float64"):
        LayerTrust().check(weights(query, keys, positions, AttentionRule(0.35))[0], values, output.double(), 40)


def test_the_reader_finds_keys_and_values_in_the_engine_s_column_major_blocks() -> None:
    """Blocks 5 and 2 hold tokens 0-3 and 4-6; keys are stored [D, N] in a block, values [N, D]."""
    heads, size, dim = 2, 4, 6
    cache = torch.zeros(8, heads, size, 2 * dim)
    keys, values = torch.randn(7, heads, dim), torch.randn(7, heads, dim)
    flat = cache.view(8, heads, 2, size * dim)
    for token in range(7):
        block, slot = (5, token) if token < size else (2, token - size)
        for head in range(heads):
            flat[block, head, 0].view(dim, size)[:, slot] = keys[token, head]
            flat[block, head, 1].view(size, dim)[slot] = values[token, head]
    read_keys, read_values = CpuVectorReader().read(cache, torch.tensor([5, 2, 0]), 7)
    assert torch.equal(read_keys, keys)
    assert torch.equal(read_values, values)


def test_trust_is_earned_again_when_rows_have_doubled() -> None:
    """A window of 64 hides nothing from rows of 40: what they prove says nothing about rows of 100."""
    trust = check(scene()[1], AttentionRule(0.35, window=64))
    assert trust.covers(79)
    assert not trust.covers(80)
    query, keys, values, positions, output = scene(100)
    attention, _ = weights(query, keys, positions, AttentionRule(0.35, window=64))
    with pytest.raises(CaptureRefused, match="kernel's output"):
        trust.check(attention, values, output, 100)
