"""Caches that no engine here can serve, and those that it can: what is read is what was written, in every layout.

The layouts of ``vec`` and ``vec16`` are written by vLLM's own operator.  Those of AMX and of FP8 caches need a processor with
AVX-512; they are written by the code below, from vLLM's sources (csrc/cpu/cpu_attn_amx.hpp, cpu_attn_fp8.hpp).
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from headwatch.capture.cache.cpu import Fp8Reader
from headwatch.capture.cache.learnt import LearntReader, learn
from headwatch.capture.cache.reader import CpuVectorReader, reader_for
from headwatch.capture.kernels import oracle
from headwatch.capture.layers.attention import AttentionRule, row_spans
from headwatch.errors import CaptureRefused
from headwatch.model import Span

from ..variants.matrix import Row, saw

TOKENS, PAGES, KV_HEADS, HEADS, SIZE = 32, 4, 2, 4, 64
LENGTH = 100
SCALES = {"k": 0.07, "v": 0.11}
FP8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


@pytest.fixture(scope="module")
def operators():
    """vLLM's own cache operators, for this processor."""
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    from vllm import _custom_ops

    return _custom_ops


def engine_writer(operators, isa, kv_cache_dtype="auto"):
    def write(key, value, key_cache, value_cache, slots):
        operators.cpu_attn_reshape_and_cache(
            key, value, key_cache, value_cache, slots, isa, k_scale=1.0, v_scale=1.0, kv_cache_dtype=kv_cache_dtype
        )

    return write


def cell_writer(key_cell, value_cell, *, store=lambda number: number, pad=0):
    """Return a writer that puts dimension d of a token into a cell of its block, as C++ does with pointers."""

    def write(key, value, key_cache, value_cache, slots):
        size, tokens = key.shape[2], key_cache.shape[2]
        at, d = np.meshgrid(slots.numpy() % tokens, np.arange(size), indexing="ij")
        block = torch.as_tensor(slots.numpy() // tokens)
        for numbers, cache, cell in ((key, key_cache, key_cell), (value, value_cache, value_cell)):
            cells = torch.as_tensor(cell(at, d, tokens, size))
            for head in range(key.shape[1]):
                flat = cache[:, head].as_strided((len(cache), tokens * size + pad), (cache.stride(0), 1))
                flat[block[:, None], cells] = store(numbers[:, head]).to(cache.dtype)

    return write


def amx_key(token, dim, _tokens, size):
    """Pairs of dimensions (4 bytes of bfloat16), in groups of 16 tokens."""
    return (token // 16) * 16 * size + (dim // 2) * 32 + (token % 16) * 2 + dim % 2


def amx_value(token, dim, tokens, _size):
    """Pairs of tokens, in groups of 16 dimensions."""
    return (dim // 16) * tokens * 16 + (token // 2) * 32 + (dim % 16) * 2 + token % 2


def column(token, dim, tokens, _size):
    return dim * tokens + token


def row_major(token, dim, _tokens, size):
    return token * size + dim


def truncated(dtype, scale):
    """Return vLLM's scalar quantiser: clamped, and cut off instead of rounded (cpu_attn_fp8.hpp)."""

    def store(numbers):
        scaled = (numbers.float() / scale).clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max)
        rounded = scaled.to(dtype)
        codes = rounded.view(torch.uint8)
        away = rounded.float().abs() > scaled.abs()
        return torch.where(away, codes - 1, codes)  # a code less is the next smaller magnitude

    return store


def decoded(codes, exponent_bits, mantissa_bits):
    """Return FP8 numbers by the definition of the format, one at a time."""
    bias = (1 << (exponent_bits - 1)) - 1
    values = []
    for code in codes.flatten().tolist():
        sign = -1.0 if code & 0x80 else 1.0
        exponent, mantissa = (code & 0x7F) >> mantissa_bits, code & ((1 << mantissa_bits) - 1)
        fraction = mantissa / (1 << mantissa_bits)
        values.append(sign * (fraction * 2.0 ** (1 - bias) if exponent == 0 else (1 + fraction) * 2.0 ** (exponent - bias)))
    return torch.tensor(values, dtype=torch.float64).reshape(codes.shape)


def tensors(dtype, size=SIZE):
    generator = torch.Generator().manual_seed(11)
    shape = (LENGTH, KV_HEADS, size)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(2)]


def filled(write, keys, values, cache_dtype):
    """Return a cache in which *write* has put *keys* and *values* into pages out of order, and those pages."""
    size = keys.shape[2]
    cache = torch.zeros(PAGES + 3, KV_HEADS, TOKENS, 2 * size, dtype=cache_dtype)
    blocks = torch.tensor([5, 2, 6, 0])
    key_cache, value_cache = cache.view(len(cache), KV_HEADS, 2 * TOKENS, size).chunk(2, dim=2)
    at = torch.arange(LENGTH)
    write(keys, values, key_cache, value_cache, blocks[at // TOKENS] * TOKENS + at % TOKENS)
    return cache, blocks


def summaries(keys, values):
    """Return features, masses and value masses of the last eight rows, from the oracle in float64."""
    query = torch.randn(8, HEADS, keys.shape[2], generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    positions = torch.arange(LENGTH - 8, LENGTH)
    spans = row_spans([Span("system", 0, 9), Span("document", 9, 70, 0), Span("user", 70, 92)])
    rule = AttentionRule(0.2)
    attention, sink = oracle.weights(query, keys.double(), positions, rule)
    features, mass = oracle.summarise(attention, sink, positions, spans, rule)
    return features, mass, oracle.value_mass(attention, values.double(), spans)


def largest_difference(found, expected):
    return max(float(torch.nan_to_num(a - b).abs().max()) for a, b in zip(found, expected, strict=True))


def recorded(variant, layout, dtype, error):
    saw(Row(
        variant=variant, model="random tensors", vllm="", runner="", backend="CPUAttentionBackendImpl", layout=layout,
        dtype=dtype, rows=8, max_error=error, bound=2e-2 if dtype != "float32" else 1e-4, against="oracle, float64",
        shown_by="recorded tensors",
    ))  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("isa", "size"), [("vec", 64), ("vec", 128), ("vec", 32), ("vec16", 80), ("vec16", 112)])
def test_a_learnt_layout_is_the_one_that_is_known(operators, isa, size, dtype):
    """What learning finds out about vLLM's own writer is what the reader for it has been told."""
    write = engine_writer(operators, isa)
    keys, values = tensors(dtype, size)
    cache, blocks = filled(write, keys, values, dtype)
    known = CpuVectorReader().read(cache, blocks, LENGTH)
    learnt = LearntReader(learn(write, TOKENS, size, dtype, dtype)).read(cache, blocks, LENGTH)
    for expected, a, b in zip((keys, values), known, learnt, strict=True):
        assert torch.equal(a, expected)
        assert torch.equal(b, expected)


def test_amx_tiles_of_bfloat16():
    """Summaries from tiles are those from the tensors that were packed into them, bit for bit."""
    write = cell_writer(amx_key, amx_value)
    keys, values = tensors(torch.bfloat16)
    cache, blocks = filled(write, keys, values, torch.bfloat16)
    reader = LearntReader(learn(write, TOKENS, SIZE, torch.bfloat16, torch.bfloat16))
    found = reader.read(cache, blocks, LENGTH)
    assert not torch.equal(CpuVectorReader().read(cache, blocks, LENGTH)[0], keys), "the layouts differ"
    error = largest_difference(summaries(*found), summaries(keys, values))
    assert error == 0.0
    recorded("AMX tiles", "amx, learnt", "bfloat16", error)


@pytest.mark.parametrize("form", FP8)
@pytest.mark.parametrize("isa", ["vec", "amx"])
def test_fp8_caches_are_decoded_with_the_scales_of_their_layer(form, isa):
    """Summaries from the bytes are those of the oracle on the dequantised cache; keys lie within a step of the originals."""
    keys, values = tensors(torch.float32)
    cells = {"vec": (column, row_major), "amx": (amx_key, amx_value)}[isa]
    dtype = FP8[form]

    def write(key, value, key_cache, value_cache, slots):
        for which, numbers, cache in (("k", key, key_cache), ("v", value, value_cache)):
            twice = cell_writer(cells[which == "v"], cells[which == "v"], store=truncated(dtype, SCALES[which]))
            twice(numbers, numbers, cache, cache, slots)

    layer = SimpleNamespace(_k_scale_float=SCALES["k"], _v_scale_float=SCALES["v"])
    plain = cell_writer(*cells, store=truncated(dtype, 1.0))
    inner = CpuVectorReader() if isa == "vec" else LearntReader(learn(plain, TOKENS, SIZE, torch.float32, torch.uint8))
    cache, blocks = filled(write, keys, values, torch.uint8)
    found = Fp8Reader(inner, layer, dtype).read(cache, blocks, LENGTH)
    bits = (4, 3) if form == "e4m3" else (5, 2)
    expected = [
        decoded(truncated(dtype, SCALES[which])(numbers), *bits) * SCALES[which]
        for which, numbers in (("k", keys), ("v", values))
    ]
    for read, dequantised, original in zip(found, expected, (keys, values), strict=True):
        assert torch.allclose(read.double(), dequantised, rtol=1e-6, atol=0)
        step = original.abs() / (1 << bits[1]) + SCALES["v"] * 2.0**-6
        assert ((read - original).abs() <= step).all()
    error = largest_difference(summaries(*found), summaries(*expected))
    assert error <= 2e-2
    assert largest_difference(summaries(*found), summaries(keys, values)) > 10 * error, "quantisation shows"
    recorded("FP8 cache, vec" if isa == "vec" else "FP8 cache, AMX tiles", f"{isa} fp8 {form}", f"fp8 {form}", error)


def test_any_permutation_is_learnt():
    """A layout that nobody has thought of: cells of keys and values in random order."""
    keys, values = tensors(torch.float32)
    orders = [torch.randperm(TOKENS * SIZE, generator=torch.Generator().manual_seed(seed)).numpy() for seed in (1, 2)]
    write = cell_writer(*(lambda t, d, _n, s, order=order: order[t * s + d] for order in orders))
    cache, blocks = filled(write, keys, values, torch.float32)
    found = LearntReader(learn(write, TOKENS, SIZE, torch.float32, torch.float32)).read(cache, blocks, LENGTH)
    error = largest_difference(summaries(*found), summaries(keys, values))
    assert error == 0.0
    recorded("unknown layouts", "any permutation, learnt", "float32", error)


def scaled(key, value, key_cache, value_cache, slots):
    """A writer that changes numbers, not only their order."""
    cell_writer(column, row_major)(key * (1 + slots[:, None, None] % 2), value, key_cache, value_cache, slots)


def forgetful(key, value, key_cache, value_cache, slots):
    """A writer that keeps half of the keys."""
    cell_writer(lambda t, d, n, s: column(t, d // 2 * 2, n, s), row_major)(key, value, key_cache, value_cache, slots)


def by_block(key, value, key_cache, value_cache, slots):
    """A writer whose layout is another one in the second block."""
    first = slots < TOKENS
    cell_writer(column, row_major)(key[first], value[first], key_cache, value_cache, slots[first])
    cell_writer(row_major, row_major)(key[~first], value[~first], key_cache, value_cache, slots[~first])


@pytest.mark.parametrize("write", [scaled, forgetful, by_block], ids=lambda write: write.__name__)
def test_a_writer_that_does_more_than_permute_is_refused(write):
    with pytest.raises(CaptureRefused) as refusal:
        learn(write, TOKENS, SIZE, torch.float32, torch.float32)
    assert refusal.value.reason == "layout"


class CPUAttentionBackendImpl:
    """Named as vLLM's own."""

    num_heads = HEADS
    is_fp8_kv_cache = False
    kv_cache_dtype = "auto"


def test_the_amx_layout_is_learnt_from_vllms_writer_or_refused_with_its_reason(operators):
    """Builds of vLLM for AVX-512 write it on any processor that runs them; others say that they cannot."""
    layer = SimpleNamespace(
        impl=CPUAttentionBackendImpl(), isa="amx", dtype=torch.bfloat16,
        kv_cache=torch.zeros(2, KV_HEADS, TOKENS, 2 * SIZE, dtype=torch.bfloat16),
    )
    if _refused(layer):
        assert not torch.cpu._is_amx_tile_supported()
        return
    reader = reader_for(layer)
    assert isinstance(reader, LearntReader)
    token, number = torch.arange(TOKENS)[:, None], torch.arange(SIZE)[None, :]
    pairs = token // 16 * 16 * SIZE + number // 2 * 32 + token % 16 * 2 + number % 2
    assert torch.equal(reader.layout.key_cells, pairs.flatten()), "what the compiled kernel takes it for"


def _refused(layer: SimpleNamespace) -> bool:
    try:
        reader_for(layer)
    except CaptureRefused as refusal:
        return refusal.reason == "layout" and "Unsupported CPU attention configuration" in str(refusal)
    return False
