"""Which layers are captured, under which number, and which are refused or left out, by what they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from headwatch.capture.cache.reader import CpuVectorReader
from headwatch.capture.layers.discovery import discover, layer_number
from headwatch.capture.layers.kinds import left_out
from headwatch.capture.layers.latent import LatentHeads, LatentReader
from headwatch.errors import CaptureRefused

HEADS = 4


class CPUAttentionBackendImpl:
    """Named as vLLM's own."""

    def __init__(self, **changed: Any) -> None:
        self.num_heads, self.scale, self.sliding_window = HEADS, 0.25, -1
        self.logits_soft_cap, self.alibi_slopes, self.sinks = 0, None, None
        self.kv_cache_dtype, self.is_fp8_kv_cache = "auto", False
        vars(self).update(changed)


class CrossAttentionImpl(CPUAttentionBackendImpl):
    """vLLM derives it for cross-attention."""


class CPUMLAImpl(CPUAttentionBackendImpl):
    """vLLM's latent attention on the CPU."""


class Attention:
    """Named as vLLM's own."""

    attn_type = "decoder"
    isa = "vec"
    kv_sharing_target_layer_name: str | None = None

    def __init__(self, impl: CPUAttentionBackendImpl | None = None, **changed: Any) -> None:
        self.impl = impl or CPUAttentionBackendImpl()
        vars(self).update(changed)


class ChunkedLocalAttention(Attention):
    attention_chunk_size = 64


class CrossAttention(Attention):
    attn_type = "encoder_decoder"


class StaticSinkAttention(Attention):
    """One that no rule describes."""


class MLAAttention:
    kv_cache_dtype = "auto"
    kv_lora_rank, qk_rope_head_dim, qk_nope_head_dim = 6, 2, 3

    def __init__(self) -> None:
        self.impl = CPUMLAImpl()
        generator = torch.Generator().manual_seed(2)
        self.W_UK_T = torch.randn(HEADS, 3, 6, generator=generator)
        self.W_UV = torch.randn(HEADS, 6, 5, generator=generator)


def found(**layers: Any) -> dict[str, Any]:
    """Return the discovered layers by name; dots in names are written as two underscores."""
    return {item.name: item for item in discover({name.replace("__", "."): layer for name, layer in layers.items()}, ())}


@pytest.mark.parametrize(
    ("name", "attentions", "number"),
    [
        ("model.layers.3.self_attn.attn", 1, 3),
        ("transformer.h.11.self_attention.attn", 1, 11),
        ("model.layers.3.self_attn.0.attn", 2, 6),
        ("model.layers.3.self_attn.1.attn", 2, 7),
        ("7.attn", 1, 7),
    ],
)
def test_numbers_are_those_of_the_whole_model(name: str, attentions: int, number: int) -> None:
    assert layer_number(name, attentions) == number


@pytest.mark.parametrize("name", ["model.attn", "model.layers.1.experts.2.blocks.3.attn"])
def test_a_name_with_no_number_or_three_is_refused(name: str) -> None:
    with pytest.raises(CaptureRefused) as refusal:
        layer_number(name)
    assert refusal.value.reason == "layer_name"


def test_two_attentions_in_a_layer_follow_each_other() -> None:
    names = [f"model.layers.{layer}.self_attn.{part}.attn" for layer in (0, 1) for part in (0, 1)]
    layers = discover({name: Attention() for name in names}, ())
    assert [(item.name, item.number) for item in layers] == list(zip(names, range(4), strict=True))
    assert all(item.active for item in layers)


def test_two_layers_with_one_number_are_both_refused() -> None:
    layers = found(model__layers__0__attn=Attention(), mtp__layers__0__attn=Attention(), model__layers__1__attn=Attention())
    assert [item.refused.split(":")[0] for item in layers.values()] == ["layer_name", "layer_name", ""]


def test_cross_attention_is_numbered_after_self_attention_and_sees_everything() -> None:
    layers = found(
        model__decoder__layers__0__self_attn=Attention(),
        model__decoder__layers__0__encoder_attn=CrossAttention(CrossAttentionImpl()),
        model__decoder__layers__1__self_attn=Attention(),
        model__decoder__layers__1__encoder_attn=CrossAttention(CrossAttentionImpl()),
    )
    assert {name: (item.number, item.kind) for name, item in layers.items()} == {
        "model.decoder.layers.0.self_attn": (0, "self"),
        "model.decoder.layers.1.self_attn": (1, "self"),
        "model.decoder.layers.0.encoder_attn": (2, "cross"),
        "model.decoder.layers.1.encoder_attn": (3, "cross"),
    }
    assert all(item.active for item in layers.values())
    assert [item.rule.causal for item in layers.values()] == [True, True, False, False]


def test_wanted_layers_alone_are_captured() -> None:
    context = {f"model.layers.{number}.attn": Attention() for number in range(4)}
    assert [item.number for item in discover(context, (1, 3))] == [1, 3]


def test_what_a_layer_hides_comes_from_the_layer() -> None:
    layers = found(
        a__0__attn=Attention(CPUAttentionBackendImpl(sliding_window=48, logits_soft_cap=30.0)),
        a__1__attn=ChunkedLocalAttention(),
    )
    first, second = (item.rule for item in layers.values())
    assert (first.window, first.softcap, first.chunk) == (48, 30.0, 0)
    assert (second.window, second.softcap, second.chunk) == (0, 0.0, 64)


def test_a_layer_that_shares_a_cache_is_read_as_its_owner_is() -> None:
    """The owner's layout counts: vLLM writes it on the owner alone."""
    borrower = Attention(kv_sharing_target_layer_name="a.0.attn", isa=None)
    layers = found(a__0__attn=Attention(), a__1__attn=borrower)
    assert isinstance(layers["a.1.attn"].reader, CpuVectorReader)
    assert layers["a.1.attn"].layout == "vec shared"


def test_a_layer_whose_cache_is_not_here_is_refused() -> None:
    layers = found(a__1__attn=Attention(kv_sharing_target_layer_name="a.0.attn"))
    assert layers["a.1.attn"].refused.startswith("shared_cache: ")


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (StaticSinkAttention(), "attention_type: layers of class StaticSinkAttention"),
        (Attention(attn_type="prefix_lm"), "attention_type: attention type 'prefix_lm'"),
        (Attention(use_mm_prefix=True), "mask: "),
        (Attention(use_alibi_sqrt=True), "mask: "),
        (Attention(CPUAttentionBackendImpl(is_fp8_kv_cache=True, kv_cache_dtype="nvfp4")), "cache_dtype: "),
        (Attention(SimpleNamespace(num_heads=4)), "backend: "),  # type: ignore[arg-type]  # an implementation of nobody's
    ],
    ids=["static sinks", "prefix", "image prefix", "square root of ALiBi", "cache dtype", "backend"],
)
def test_what_attends_and_is_not_understood_is_refused_by_name(layer: Any, reason: str) -> None:
    assert found(a__0__attn=layer)["a.0.attn"].refused.startswith(reason)


def test_what_does_not_attend_to_the_request_is_left_out_and_is_no_layer() -> None:
    class Vision:
        pass

    class MMEncoderAttention:
        pass

    class WhisperEncoderAttention(MMEncoderAttention):
        pass

    context = {
        "model.layers.0.mamba": SimpleNamespace(mamba_type="mamba2"),
        "model.layers.1.attn": Attention(),
        "model.layers.2.experts": SimpleNamespace(),
        "encoder.layers.0.attn": Attention(attn_type="encoder_only"),
    }
    modules = [("vision.0", Vision()), ("vision.0.attn", MMEncoderAttention()), ("ear.0.attn", WhisperEncoderAttention())]
    named = left_out(context, modules)
    assert named["model.layers.0.mamba"] == "no attention: mamba2"
    assert {name for name, reason in named.items() if reason.startswith("encoder")} == {
        "encoder.layers.0.attn", "vision.0.attn", "ear.0.attn",
    }  # fmt: skip
    assert [item.name for item in discover(context, ())] == ["model.layers.1.attn"]


def test_latents_give_the_attention_that_expanded_keys_and_values_give() -> None:
    """Absorbed queries and expanded sums against keys and values that are built head by head."""
    layer = MLAAttention()
    item = found(a__0__attn=layer)["a.0.attn"]
    assert item.active
    assert isinstance(item.latent, LatentHeads)
    generator = torch.Generator().manual_seed(4)
    cache = torch.randn(3, 16, 8, generator=generator)
    keys, latents = LatentReader(layer).read(cache, torch.tensor([2, 0]), 20)
    assert torch.equal(keys[:, 0], torch.cat([cache[2], cache[0]])[:20])
    query = torch.randn(2, HEADS, 5, generator=generator)
    expanded = torch.einsum("nl,hpl->nhp", latents[:, 0], layer.W_UK_T)
    plain, rotated = query.split([3, 2], dim=-1)
    expected = torch.einsum("rhp,nhp->rhn", plain, expanded) + torch.einsum("rhp,np->rhn", rotated, keys[:, 0, 6:])
    logits = torch.einsum("rhl,nl->rhn", item.latent.absorb(query), keys[:, 0])
    assert torch.allclose(logits, expected, atol=1e-5)
    attention = logits.softmax(-1)
    values = torch.einsum("nl,hlv->nhv", latents[:, 0], layer.W_UV)
    summed = torch.einsum("rhn,nl->rhl", attention, latents[:, 0])
    assert torch.allclose(item.latent.expand(summed), torch.einsum("rhn,nhv->rhv", attention, values), atol=1e-5)
    assert torch.allclose(item.latent.expand(latents), values, atol=1e-5)


def test_latent_caches_that_are_not_understood_are_refused() -> None:
    quantised, sparse, packed = MLAAttention(), MLAAttention(), MLAAttention()
    quantised.kv_cache_dtype = "fp8"
    sparse.indexer = object()  # type: ignore[attr-defined]  # vLLM's attribute
    del packed.W_UK_T
    reasons = [found(a__0__attn=layer)["a.0.attn"].refused.split(":")[0] for layer in (quantised, sparse, packed)]
    assert reasons == ["cache_dtype", "sparse", "layout"]
