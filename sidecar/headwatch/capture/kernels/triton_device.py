"""The Triton kernels of :class:`headwatch.capture.kernels.triton_rows.TritonRows`.  Importing this module loads Triton.

:func:`partial_sums` reads K once.  With the running maximum m and e = exp(l - m) for the logits l of a tile it keeps

- Z = Σ e, and E = Σ e (l - m), from which entropy = ln Z - E / Z; where m grows by d, Z ← Z exp(-d) and
  E ← exp(-d) (E - d Z): that is what makes entropy a one-pass sum;
- Σ e at position 0, Σ e over the last 32 positions, Σ e (i - j);
- Σ e over the open span, and Σ e ‖v_j‖ where values are wanted.  Spans follow each other, so one accumulator is enough: where a
  span ends it is stored with the m of that moment and starts again at 0.

:func:`merge` brings the splits of a row to one maximum, adds the learned sink, and writes features and span masses.
"""

from __future__ import annotations

import triton  # type: ignore[import-untyped]  # ships no type information
import triton.language as tl  # type: ignore[import-untyped]  # ships no type information

from headwatch.capture.kernels.triton_work import ITEM_FIELDS, ROW_FIELDS, TILE_FIELDS
from headwatch.model import FEATURES, LOCAL_TOKENS

NATIVE, E4M3, E5M2 = 0, 1, 2
"""What the elements of a tensor are: a type that Triton knows, or bytes of FP8."""

_NATIVE, _E4M3 = tl.constexpr(NATIVE), tl.constexpr(E4M3)
_LOCAL, _FEATURES = tl.constexpr(LOCAL_TOKENS), tl.constexpr(len(FEATURES))
_ROW, _TILE, _ITEM = tl.constexpr(len(ROW_FIELDS)), tl.constexpr(len(TILE_FIELDS)), tl.constexpr(len(ITEM_FIELDS))
STATS = 6
"""Sums of a split: m, Z, E, position 0, local, distance."""
_STATS = tl.constexpr(STATS)
_SPANS_AT_ONCE = tl.constexpr(16)


@triton.jit  # type: ignore[untyped-decorator]  # Triton is untyped
def _decoded(raw: tl.tensor, form: tl.constexpr, to: tl.constexpr) -> tl.tensor:
    """Return *raw* as numbers of type *to*.

    FP8 is decoded by moving its bits into a binary16, the same on every GPU: E4M3 has no type in Triton before compute
    capability 8.9.  Exact: each value of both formats is a binary16 and a bfloat16.
    """
    if form == _NATIVE:
        return raw.to(to)
    if form == _E4M3:  # bias 7 against 15: a factor of 2^8; no infinity, one NaN
        low = raw & 0x7F
        magnitude = (low.to(tl.uint16) << 7).to(tl.float16, bitcast=True).to(tl.float32) * 256.0
        magnitude = tl.where(low == 0x7F, float("nan"), magnitude)  # noqa: PLR2004 - its bit pattern
        return tl.where(raw >= 0x80, -magnitude, magnitude).to(to)  # noqa: PLR2004 - the sign bit
    return (raw.to(tl.uint16) << 8).to(tl.float16, bitcast=True).to(tl.float32).to(to)


@triton.jit  # type: ignore[untyped-decorator]  # Triton is untyped
def _tanh(x: tl.tensor) -> tl.tensor:
    """Return tanh(x), relative error below 1e-6: a series near 0, where the quotient of exponentials cancels."""
    square = x * x
    near = x * (1.0 + square * (-1.0 / 3 + square * (2.0 / 15 + square * (-17.0 / 315 + square * (62.0 / 2835)))))
    decay = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - decay) / (1.0 + decay)
    return tl.where(square < 0.04, near, tl.where(x < 0, -far, far))  # noqa: PLR2004 - |x| < 0.2


@triton.jit(do_not_specialize=["heads"])  # type: ignore[untyped-decorator]  # Triton is untyped
def partial_sums(  # noqa: C901, PLR0913, PLR0915, PLR0917 - a kernel is given all it reads, and the one pass stays in one piece
    query: tl.tensor, keys: tl.tensor, values: tl.tensor, block_table: tl.tensor,
    key_scale: tl.tensor, value_scale: tl.tensor, slopes: tl.tensor,
    rows: tl.tensor, tiles: tl.tensor, items: tl.tensor, ends: tl.tensor,
    stats: tl.tensor,  # [items, groups, STATS, tile_m]
    sums: tl.tensor,  # [slots, groups, 2 or 3, tile_m]: the m of each sum, masses, value masses
    query_stride: tl.tensor, query_head_stride: tl.tensor, table_stride: tl.tensor,
    key_page_stride: tl.tensor, key_token_stride: tl.tensor, key_head_stride: tl.tensor, key_scale_stride: tl.tensor,
    value_page_stride: tl.tensor, value_token_stride: tl.tensor, value_head_stride: tl.tensor, value_scale_stride: tl.tensor,
    scale: tl.tensor, softcap: tl.tensor, heads: tl.tensor,
    dim: tl.constexpr, value_dim: tl.constexpr, dim_pad: tl.constexpr, value_pad: tl.constexpr, page: tl.constexpr,
    parts: tl.constexpr, part_heads: tl.constexpr, tile_m: tl.constexpr, tile_n: tl.constexpr,
    query_form: tl.constexpr, key_form: tl.constexpr, dot_type: tl.constexpr,
    has_softcap: tl.constexpr, has_slopes: tl.constexpr, with_values: tl.constexpr,
) -> None:  # fmt: skip
    """Sum one split for the query heads of one KV head.

    *heads* query heads share a KV head; more than 64 of them are taken in *parts* of *part_heads*.  The vectors of a tile
    are [row][head of the part].
    """
    item, group = tl.program_id(0), tl.program_id(1)
    kv_head = group // parts
    tile = tl.load(items + item * _ITEM)
    start, stop = tl.load(items + item * _ITEM + 1), tl.load(items + item * _ITEM + 2)
    span, slot = tl.load(items + item * _ITEM + 3), tl.load(items + item * _ITEM + 4)
    about = tiles + tile * _TILE
    pages = block_table + tl.load(about).to(tl.int64) * table_stride
    ends += tl.load(about + 3)
    spans = tl.load(about + 4)

    vector = tl.arange(0, tile_m)
    place = vector // part_heads
    head = (group % parts) * part_heads + vector % part_heads  # of those that share the KV head
    real = (place < tl.load(about + 2)) & (head < heads)
    row = rows + (tl.load(about + 1) + place) * _ROW
    position = tl.load(row + 2, mask=real, other=0)
    first = tl.load(row + 3, mask=real, other=1)
    last = tl.load(row + 4, mask=real, other=0)  # 1 to 0: a vector that stands for no row sees nothing
    depth = tl.arange(0, dim_pad)
    at = tl.load(row + 1, mask=real, other=0).to(tl.int64) * query_stride + (kv_head * heads + head) * query_head_stride
    q = tl.load(query + at[:, None] + depth[None, :], mask=real[:, None] & (depth < dim)[None, :], other=0)
    q = _decoded(q, query_form, dot_type)  # [tile_m, dim_pad]
    factor = scale * tl.load(key_scale + kv_head * key_scale_stride)
    if has_slopes:
        slope = tl.load(slopes + kv_head * heads + head, mask=real, other=0).to(tl.float32)
    if with_values:
        carried_factor = tl.load(value_scale + kv_head * value_scale_stride)
        value_depth = tl.arange(0, value_pad)

    top = tl.full([tile_m], float("-inf"), tl.float32)
    z = tl.zeros([tile_m], tl.float32)
    e = tl.zeros([tile_m], tl.float32)
    origin = tl.zeros([tile_m], tl.float32)
    local = tl.zeros([tile_m], tl.float32)
    distance = tl.zeros([tile_m], tl.float32)
    mass = tl.zeros([tile_m], tl.float32)  # of the open span
    carried = tl.zeros([tile_m], tl.float32)
    end = tl.load(ends + span, mask=span < spans, other=0x7FFFFFFF)  # generated text, the last span, ends nowhere
    lanes = (2 + with_values) * tile_m

    for block in range(start, stop, tile_n):
        j = block + tl.arange(0, tile_n)
        inside = j < stop
        number = tl.load(pages + j // page, mask=inside, other=0).to(tl.int64)
        where = number * key_page_stride + (j % page) * key_token_stride + kv_head * key_head_stride
        k = tl.load(keys + where[None, :] + depth[:, None], mask=inside[None, :] & (depth < dim)[:, None], other=0)
        logits = tl.dot(q, _decoded(k, key_form, dot_type), input_precision="ieee") * factor  # [tile_m, tile_n]
        if has_softcap:
            logits = softcap * _tanh(logits / softcap)
        back = position[:, None] - j[None, :]
        if has_slopes:
            logits -= slope[:, None] * back.to(tl.float32)
        seen = (j[None, :] >= first[:, None]) & (j[None, :] <= last[:, None]) & inside[None, :]
        logits = tl.where(seen, logits, float("-inf"))

        higher = tl.maximum(top, tl.max(logits, axis=1))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # nothing seen yet: keeps -inf - -inf away
        shrink = tl.exp(top - base)
        below = logits - base[:, None]
        p = tl.exp(below)
        e = shrink * (e + tl.where(z > 0, (top - base) * z, 0.0)) + tl.sum(tl.where(p > 0, p * below, 0.0), axis=1)
        z = shrink * z + tl.sum(p, axis=1)
        origin = shrink * origin + tl.sum(tl.where((j == 0)[None, :], p, 0.0), axis=1)
        local = shrink * local + tl.sum(tl.where(back < _LOCAL, p, 0.0), axis=1)
        distance = shrink * distance + tl.sum(tl.where(p > 0, p * back.to(tl.float32), 0.0), axis=1)
        top = higher

        mass *= shrink
        carried *= shrink
        if with_values:
            where = number * value_page_stride + (j % page) * value_token_stride + kv_head * value_head_stride
            v = tl.load(
                values + where[:, None] + value_depth[None, :],
                mask=inside[:, None] & (value_depth < value_dim)[None, :], other=0,
            )  # fmt: skip
            v = _decoded(v, key_form, tl.float32)
            moved = tl.where(p > 0, p * (tl.sqrt(tl.sum(v * v, axis=1)) * carried_factor)[None, :], 0.0)
        begin = block
        while end <= tl.minimum(block + tile_n, stop):  # spans that end in this tile
            member = ((j >= begin) & (j < end))[None, :]
            mass += tl.sum(tl.where(member, p, 0.0), axis=1)
            to = sums + (slot.to(tl.int64) * tl.num_programs(1) + group) * lanes + vector
            tl.store(to, top)
            tl.store(to + tile_m, mass)
            mass = tl.zeros([tile_m], tl.float32)
            if with_values:
                carried += tl.sum(tl.where(member, moved, 0.0), axis=1)
                tl.store(to + 2 * tile_m, carried)
                carried = tl.zeros([tile_m], tl.float32)
            begin = end
            span += 1
            slot += 1
            end = tl.load(ends + span, mask=span < spans, other=0x7FFFFFFF)
        member = (j >= begin)[None, :]
        mass += tl.sum(tl.where(member, p, 0.0), axis=1)
        if with_values:
            carried += tl.sum(tl.where(member, moved, 0.0), axis=1)

    to = sums + (slot.to(tl.int64) * tl.num_programs(1) + group) * lanes + vector
    tl.store(to, top)
    tl.store(to + tile_m, mass)
    if with_values:
        tl.store(to + 2 * tile_m, carried)
    to = stats + (item.to(tl.int64) * tl.num_programs(1) + group) * _STATS * tile_m + vector
    tl.store(to, top)
    tl.store(to + tile_m, z)
    tl.store(to + 2 * tile_m, e)
    tl.store(to + 3 * tile_m, origin)
    tl.store(to + 4 * tile_m, local)
    tl.store(to + 5 * tile_m, distance)


@triton.jit(do_not_specialize=["heads", "split", "layer"])  # type: ignore[untyped-decorator]  # Triton is untyped
def merge(  # noqa: PLR0913, PLR0915, PLR0917 - a kernel is given all it reads
    stats: tl.tensor, sums: tl.tensor, sinks: tl.tensor, output: tl.tensor,
    rows: tl.tensor, tiles: tl.tensor, ends: tl.tensor, documents: tl.tensor,
    features: tl.tensor,  # [R, L, H, FEATURES]
    span_mass: tl.tensor, value_mass: tl.tensor,  # [Q, L, H]
    output_norm: tl.tensor,  # [R, L, H]
    output_stride: tl.tensor, output_head_stride: tl.tensor,
    feature_stride: tl.tensor, mass_stride: tl.tensor,
    heads: tl.tensor, split: tl.tensor, layer: tl.tensor,
    value_dim: tl.constexpr, value_pad: tl.constexpr, parts: tl.constexpr, part_heads: tl.constexpr, tile_m: tl.constexpr,
    has_sinks: tl.constexpr, causal: tl.constexpr, with_values: tl.constexpr,
) -> None:  # fmt: skip
    """Write the summary of one row for the query heads of one part."""
    about, group = rows + tl.program_id(0) * _ROW, tl.program_id(1)
    groups, all_heads = tl.num_programs(1), tl.num_programs(1) // parts * heads
    number = tl.load(about).to(tl.int64)
    first, last = tl.load(about + 3), tl.load(about + 4)
    mass_base = tl.load(about + 5).to(tl.int64)
    tile = tiles + tl.load(about + 6) * _TILE
    inner = tl.arange(0, part_heads)
    vector = tl.load(about + 7) * part_heads + inner
    mine = (group % parts) * part_heads + inner
    real = mine < heads
    head = group // parts * heads + mine
    spans, start, keys = tl.load(tile + 4), tl.load(tile + 5), tl.load(tile + 6)
    first_item, splits, stop = tl.load(tile + 7).to(tl.int64), tl.load(tile + 8), tl.load(tile + 10)
    ends += tl.load(tile + 3)
    documents += tl.load(tile + 3)

    top = tl.full([part_heads], float("-inf"), tl.float32)
    for k in range(splits):
        top = tl.maximum(top, tl.load(stats + ((first_item + k) * groups + group) * _STATS * tile_m + vector))
    base = top
    if has_sinks:
        learned = tl.load(sinks + head, mask=real, other=0).to(tl.float32)
        base = tl.maximum(top, learned)
    z = tl.zeros([part_heads], tl.float32)
    e = tl.zeros([part_heads], tl.float32)
    origin = tl.zeros([part_heads], tl.float32)
    local = tl.zeros([part_heads], tl.float32)
    distance = tl.zeros([part_heads], tl.float32)
    for k in range(splits):
        at = stats + ((first_item + k) * groups + group) * _STATS * tile_m + vector
        below = tl.load(at) - base
        shrink = tl.exp(below)
        part = tl.load(at + tile_m)
        z += shrink * part
        e += shrink * (tl.load(at + 2 * tile_m) + tl.where(part > 0, below * part, 0.0))
        origin += shrink * tl.load(at + 3 * tile_m)
        local += shrink * tl.load(at + 4 * tile_m)
        distance += shrink * tl.load(at + 5 * tile_m)
    total = z
    if has_sinks:
        total += tl.exp(learned - base)
        origin += tl.exp(learned - base)

    visible = last - first + 1
    document_mass = tl.zeros([part_heads], tl.float32)
    generated_mass = tl.zeros([part_heads], tl.float32)
    document_tokens = 0
    generated_tokens = 0
    for s0 in range(0, spans + 1, _SPANS_AT_ONCE):
        s = s0 + tl.arange(0, _SPANS_AT_ONCE)
        begin = tl.load(ends + s - 1, mask=(s > 0) & (s <= spans), other=0)
        end = tl.load(ends + s, mask=s < spans, other=keys)
        low, high = tl.maximum(begin, start), tl.minimum(end, stop)
        touched = (high > low) & (s <= spans)
        first_split = (low - start) // split
        last_split = (high - 1 - start) // split
        most = tl.max(tl.where(touched, last_split - first_split + 1, 0), axis=0)
        mass = tl.zeros([_SPANS_AT_ONCE, part_heads], tl.float32)
        carried = tl.zeros([_SPANS_AT_ONCE, part_heads], tl.float32)
        for i in range(most):
            slot = tl.load(tile + 9) + first_split + i + s
            at = (slot.to(tl.int64) * groups + group) * ((2 + with_values) * tile_m)
            at = at[:, None] + vector[None, :]
            live = (touched & (first_split + i <= last_split))[:, None] & real[None, :]
            shrink = tl.exp(tl.load(sums + at, mask=live, other=float("-inf")) - base[None, :])
            part = tl.load(sums + at + tile_m, mask=live, other=0.0)
            mass += tl.where(part != 0, shrink * part, 0.0)
            if with_values:
                part = tl.load(sums + at + 2 * tile_m, mask=live, other=0.0)
                carried += tl.where(part != 0, shrink * part, 0.0)

        is_document = (tl.load(documents + s, mask=s < spans, other=0) > 0) & (s < spans)
        is_generated = s == spans
        shown = tl.maximum(tl.minimum(end, last + 1) - tl.maximum(begin, first), 0)
        document_tokens += tl.sum(tl.where(is_document, shown, 0), axis=0)
        generated_tokens += tl.sum(tl.where(is_generated, shown, 0), axis=0)
        document_mass += tl.sum(tl.where(is_document[:, None], mass, 0.0), axis=0)
        generated_mass += tl.sum(tl.where(is_generated[:, None], mass, 0.0), axis=0)
        # A row with a NaN has NaN in every span that has positions, as 0 / NaN; spans yet to come stay 0.
        reached = (begin < keys)[:, None]
        to = (mass_base + s) * mass_stride + layer * all_heads
        to = to[:, None] + head[None, :]
        write = (s <= spans)[:, None] & real[None, :]
        tl.store(span_mass + to, tl.where(reached, mass / total[None, :], 0.0), mask=write)
        if with_values:
            tl.store(value_mass + to, tl.where(reached, carried / total[None, :], 0.0), mask=write)

    alone = visible <= 1
    count = visible.to(tl.float32)
    entropy = (z / total * tl.log(total) - e / total) / tl.log(count)
    document_mean = document_mass / document_tokens
    generated_mean = generated_mass / generated_tokens
    lookback = document_mean / (document_mean + generated_mean)
    defined = (document_tokens > 0) & (generated_tokens > 0) & (total > 0)
    to = features + number * feature_stride + (layer * all_heads + head) * _FEATURES
    tl.store(to, tl.where(alone, float("nan"), entropy), mask=real)
    tl.store(to + 1, tl.exp(top - base) / total, mask=real)
    tl.store(to + 2, origin / total, mask=real)
    # Where attention is not causal, no position is the query's own, so none is near to it or far from it.
    tl.store(to + 3, tl.where((visible > 0) & causal, local / total, float("nan")), mask=real)
    tl.store(to + 4, tl.where((visible > 1) & causal, distance / total / (count - 1.0), float("nan")), mask=real)
    tl.store(to + 5, tl.where(defined, lookback, float("nan")), mask=real)
    if with_values:
        depth = tl.arange(0, value_pad)
        at = tl.load(about + 1).to(tl.int64) * output_stride + head * output_head_stride
        o = tl.load(output + at[:, None] + depth[None, :], mask=real[:, None] & (depth < value_dim)[None, :], other=0)
        o = o.to(tl.float32)
        tl.store(output_norm + number * mass_stride + layer * all_heads + head, tl.sqrt(tl.sum(o * o, axis=1)), mask=real)
