"""Readers of the GPU backends, against vLLM's own classes and the strides that its own allocator makes.

No GPU kernel of vLLM runs here: what is written goes through the expression by which all three backends take the cache apart,
and a test below fails where a new vLLM takes it apart otherwise.
"""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from headwatch.capture.cache.gpu import GPU_BACKENDS, gpu_reader_for, gpu_rule_for
from headwatch.errors import CaptureRefused

BACKENDS = ("flash_attn", "triton_attn", "flashinfer")
KV_HEADS, HEAD_SIZE, BLOCKS, LAYERS = 2, 16, 9, 3
TOKENS = 70
ATTRIBUTES = ("num_kv_heads", "head_size", "kv_cache_dtype", "alibi_slopes", "sinks", "scale")


class FlashInferImpl:
    """What FlashInfer's implementation keeps.  The real one imports the flashinfer package, which is for GPUs alone."""

    def __init__(self, kv_cache_dtype: str, sliding_window: int | None, alibi_slopes: list[float] | None) -> None:
        self.num_heads, self.num_kv_heads, self.head_size, self.scale = 4, KV_HEADS, HEAD_SIZE, 0.25
        self.sliding_window = (-1, -1) if sliding_window is None else (sliding_window - 1, 0)
        self.kv_cache_dtype, self.logits_soft_cap = kv_cache_dtype, None
        self.alibi_slopes = None if alibi_slopes is None else torch.tensor(alibi_slopes)
        self.sinks = None


def implementation(backend: str, dtype: str = "auto", window: int | None = None, alibi: list[float] | None = None) -> Any:
    if backend == "flashinfer":
        return FlashInferImpl(dtype, window, alibi)
    if backend == "flash_attn":
        from vllm.v1.attention.backends.flash_attn import FlashAttentionImpl

        impl = FlashAttentionImpl(4, HEAD_SIZE, 0.25, KV_HEADS, alibi, window, "auto")
        impl.kv_cache_dtype = dtype  # its constructor refuses FP8 where there is no GPU
        return impl
    from vllm.v1.attention.backends.triton_attn import TritonAttentionImpl

    return TritonAttentionImpl(4, HEAD_SIZE, 0.25, KV_HEADS, alibi, window, dtype)


def attention(impl: Any, scales: tuple[float, ...] = (1.0,), **more: Any) -> Any:
    """What ``Attention`` keeps beside its implementation."""
    from vllm.v1.attention.backend import AttentionType

    scale = torch.tensor(scales if len(scales) > 1 else scales[0])
    layer = SimpleNamespace(impl=impl, attn_type=AttentionType.DECODER, _k_scale=scale, _v_scale=scale * 2)
    layer._q_scale, layer.query_quant = torch.tensor(0.5), None
    for name, value in more.items():
        setattr(layer, name, value)
    return layer


def allocated(layout: str, dtype: torch.dtype, block_size: int = 16, kernel_block_size: int | None = None) -> torch.Tensor:
    """Return the cache of the second of three layers, as vLLM's allocator lays it out."""
    from vllm.v1.kv_cache_interface import (
        FullAttentionSpec,
        KVCacheTensor,
        compute_layout_strides,
        create_kv_cache_views,
    )
    from vllm.v1.kv_cache_layout import KVCacheLayout

    spec = FullAttentionSpec(
        block_size=block_size, num_kv_heads=KV_HEADS, head_size=HEAD_SIZE, head_size_v=HEAD_SIZE, dtype=dtype
    )
    order = KVCacheLayout[layout]
    layer_stride, block_stride = compute_layout_strides(spec, BLOCKS, LAYERS, order)[:2]
    size = LAYERS * BLOCKS * spec.page_size_bytes
    tensor = KVCacheTensor(
        size=size, layers=[str(n) for n in range(LAYERS)], layer_stride=layer_stride, block_stride=block_stride
    )
    raw = torch.zeros(size, dtype=torch.int8)
    return create_kv_cache_views(raw, spec, BLOCKS, order, tensor, kernel_block_size)[1]


def write(cache: torch.Tensor, pages: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, fp8: torch.dtype | None) -> None:
    """Store keys and values [tokens, KV, D] as the backends' ``do_kv_cache_update`` does."""
    key_cache, value_cache = cache.transpose(1, 2).split(HEAD_SIZE, dim=-1)
    if fp8 is not None:
        key_cache, value_cache = key_cache.view(fp8), value_cache.view(fp8)
    for position in range(len(keys)):
        page, place = int(pages[position // cache.shape[2]]), position % cache.shape[2]
        key_cache[page, place] = keys[position].to(key_cache.dtype)
        value_cache[page, place] = values[position].to(value_cache.dtype)


def known() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return tuple(torch.randn(TOKENS, KV_HEADS, HEAD_SIZE, generator=generator) for _ in range(2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["LBHNC", "LBNHC", "LHBNC", "BLHNC", "BLNHC", "BHLNC"])
def test_what_was_written_is_read_whatever_the_layout(backend: str, layout: str) -> None:
    cache = allocated(layout, torch.bfloat16)
    pages = torch.tensor([7, 0, 3, 8, 5], dtype=torch.int32)
    keys, values = (item.bfloat16() for item in known())
    write(cache, pages, keys, values, None)
    reader = gpu_reader_for(attention(implementation(backend)))
    got_keys, got_values = reader.read(cache, pages, TOKENS)
    assert torch.equal(got_keys, keys)
    assert torch.equal(got_values, values)


def test_views_copy_nothing_and_kernel_blocks_may_be_smaller_than_pages() -> None:
    cache = allocated("LBNHC", torch.float16, block_size=32, kernel_block_size=16)
    assert cache.shape == (2 * BLOCKS, KV_HEADS, 16, 2 * HEAD_SIZE)
    views = gpu_reader_for(attention(implementation("triton_attn"))).views(cache)
    views.values[17, 15, 1, HEAD_SIZE - 1] = 3.0
    assert cache[17, 1, 15, 2 * HEAD_SIZE - 1] == 3.0
    assert views.keys.shape == (2 * BLOCKS, 16, KV_HEADS, HEAD_SIZE)


@pytest.mark.parametrize(
    ("backend", "dtype", "stored"),
    [
        ("flash_attn", "fp8", torch.float8_e4m3fn),
        ("flash_attn", "fp8_e4m3", torch.float8_e4m3fn),
        ("triton_attn", "fp8", torch.float8_e4m3fn),
        ("triton_attn", "fp8_e5m2", torch.float8_e4m3fn),  # the backend stores the platform's type, whatever the name
        ("flashinfer", "fp8", torch.float8_e4m3fn),
        ("flashinfer", "fp8_e5m2", torch.float8_e5m2),
    ],
)
@pytest.mark.parametrize("scales", [(0.25,), (0.25, 2.0)], ids=["one scale", "a scale for each head"])
def test_fp8_is_decoded_with_its_scales(backend: str, dtype: str, stored: torch.dtype, scales: tuple[float, ...]) -> None:
    cache = allocated("BLNHC", torch.uint8)
    pages = torch.tensor([7, 0, 3, 8, 5], dtype=torch.int32)
    keys, values = known()
    write(cache, pages, keys, values, stored)
    reader = gpu_reader_for(attention(implementation(backend, dtype), scales))
    got_keys, got_values = reader.read(cache, pages, TOKENS)
    factor = torch.tensor(scales)[:, None]
    torch.testing.assert_close(got_keys, keys.to(stored).float() * factor, atol=0, rtol=0)
    torch.testing.assert_close(got_values, values.to(stored).float() * factor * 2, atol=0, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rule_is_what_the_layer_does(backend: str) -> None:
    plain = gpu_rule_for(attention(implementation(backend)))
    assert (plain.scale, plain.window, plain.chunk, plain.softcap) == (0.25, 0, 0, 0.0)
    assert gpu_rule_for(attention(implementation(backend, window=128))).window == 128
    assert gpu_rule_for(attention(implementation(backend), attention_chunk_size=8192)).chunk == 8192
    quantised = attention(implementation(backend, "fp8"), query_quant=object())
    assert gpu_rule_for(quantised).scale == 0.125
    if backend != "flashinfer":
        slopes = gpu_rule_for(attention(implementation(backend, alibi=[0.5, 0.25, 0.1, 0.05]))).alibi_slopes
        assert slopes is not None
        assert slopes.tolist() == pytest.approx([0.5, 0.25, 0.1, 0.05])


@pytest.mark.parametrize("backend", ["flash_attn", "triton_attn"])
def test_cross_attention_reads_as_the_backend_below_it_and_sees_all_positions(backend: str) -> None:
    """vLLM derives a class of its own from the backend's implementation."""
    from vllm.model_executor.layers.attention.cross_attention import create_cross_attention_backend
    from vllm.v1.attention.backend import AttentionType
    from vllm.v1.attention.backends.flash_attn import FlashAttentionBackend
    from vllm.v1.attention.backends.triton_attn import TritonAttentionBackend

    below = FlashAttentionBackend if backend == "flash_attn" else TritonAttentionBackend
    derived = create_cross_attention_backend(below).get_impl_cls()
    impl = derived(4, HEAD_SIZE, 0.25, KV_HEADS, None, None, "auto", attn_type=AttentionType.ENCODER_DECODER)
    layer = attention(impl, attn_type=AttentionType.ENCODER_DECODER)
    assert gpu_reader_for(layer).fp8 is None
    assert not gpu_rule_for(layer).causal
    assert gpu_rule_for(attention(implementation(backend))).causal


class Subclass(FlashInferImpl):
    """A backend that may store its cache otherwise."""


def changed(backend: str, **attributes: Any) -> Any:
    impl = implementation(backend)
    for name, value in attributes.items():
        setattr(impl, name, value)
    return impl


REFUSED = {
    "a subclass": ("backend", lambda: attention(Subclass("auto", None, None))),
    "an encoder": ("attention_type", lambda: attention(implementation("flash_attn"), attn_type="encoder_only")),
    "a part of the context": ("parallel", lambda: attention(changed("flash_attn", dcp_world_size=2))),
    "image prefixes": ("mask", lambda: attention(implementation("triton_attn"), use_mm_prefix=True)),
    "square root alibi": ("mask", lambda: attention(changed("triton_attn", use_alibi_sqrt=True))),
    "chunks that look back": ("mask", lambda: attention(changed("triton_attn", chunk_lookback=1))),
    "slopes that FlashInfer ignores": ("mask", lambda: attention(implementation("flashinfer", alibi=[0.5] * 4))),
    "a scale for each token": ("cache_dtype", lambda: attention(implementation("triton_attn", "fp8_per_token_head"))),
    "four bits": ("cache_dtype", lambda: attention(implementation("flashinfer", "nvfp4"))),
    "e5m2 in FlashAttention": ("cache_dtype", lambda: attention(implementation("flash_attn", "fp8_e5m2"))),
    "the format of older AMD GPUs": (
        "cache_dtype", lambda: attention(changed("triton_attn", kv_cache_dtype="fp8", fp8_dtype=torch.float8_e4m3fnuz))
    ),
    "three scales for two heads": ("cache_dtype", lambda: attention(implementation("flashinfer", "fp8"), (1.0, 1.0, 1.0))),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_with_its_reason(name: str) -> None:
    reason, layer = REFUSED[name]
    with pytest.raises(CaptureRefused) as refusal:
        gpu_reader_for(layer())
    assert refusal.value.reason == reason


def test_a_window_that_looks_ahead_is_refused() -> None:
    with pytest.raises(CaptureRefused, match="looks ahead"):
        gpu_rule_for(attention(changed("flash_attn", sliding_window=(63, 63))))


@pytest.mark.parametrize(
    "shape", [(4, 16, KV_HEADS, 2 * HEAD_SIZE), (4, KV_HEADS, 16, HEAD_SIZE), (4, KV_HEADS, 16, 2, HEAD_SIZE)]
)
def test_a_cache_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    reader = gpu_reader_for(attention(implementation("flash_attn")))
    with pytest.raises(CaptureRefused) as refusal:
        reader.views(torch.zeros(shape))
    assert refusal.value.reason == "layout"


def source(backend: str) -> str:
    found = find_spec(f"vllm.v1.attention.backends.{backend}")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).read_text()


@pytest.mark.parametrize(
    ("backend", "name", "needed"),
    [
        ("flash_attn", "FlashAttentionImpl", [
            "key_cache, value_cache = kv_cache.transpose(1, 2).split(self.head_size, dim=-1)",
            "key_cache = key_cache.view(current_platform.fp8_dtype())",
            "k_descale = layer._k_scale.expand(descale_shape)",
        ]),
        ("triton_attn", "TritonAttentionImpl", [
            "kv_cache = kv_cache.transpose(1, 2)", "key_cache, value_cache = kv_cache.split(hs, dim=-1)",
            "key_cache = key_cache.view(self.fp8_dtype)", "k_descale = layer._k_scale.expand(descale_shape)",
        ]),
        ("flashinfer", "FlashInferImpl", [
            "kv_cache_tuple = kv_cache_permute.split(hs, dim=-1)", "fp8_view_dtype = torch.float8_e4m3fn",
            "fp8_view_dtype = torch.float8_e5m2", "k_scale=layer._k_scale_float",
        ]),
    ],
)  # fmt: skip
def test_vllm_still_takes_its_cache_apart_as_the_readers_do(backend: str, name: str, needed: list[str]) -> None:
    """Fails when a new vLLM moves any of it: then the reader has to be read again beside it."""
    assert name in GPU_BACKENDS
    text = source(backend)
    body = text[text.index(f"class {name}(AttentionImpl)") :]
    for line in needed:
        assert line in body, line
    for attribute in ATTRIBUTES:
        assert f"self.{attribute} = " in body or f"self.{attribute}: " in body, attribute
    arguments = ("layer", "query", "key", "value", "kv_cache", "attn_metadata", "output")
    start = body.index("def forward(")
    assert [line.split(":")[0].strip() for line in body[start:].splitlines()[2:9]] == list(arguments)


def test_layers_keep_their_chunk_and_quantise_queries_where_the_rule_expects_it() -> None:
    from vllm.model_executor.layers.attention.attention import Attention
    from vllm.model_executor.layers.attention.chunked_local_attention import ChunkedLocalAttention

    assert "self.attention_chunk_size = attention_chunk_size" in inspect.getsource(ChunkedLocalAttention.__init__)

    text = inspect.getsource(Attention.forward)
    assert "if self.query_quant is not None:" in text
    assert "query, _ = self.query_quant(query, self._q_scale)" in text
