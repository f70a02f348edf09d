"""A cache layout learnt from the writer that fills it.

Backends pack keys and values for their instructions: in tiles of 16 tokens, in pairs of dimensions, in columns.  All of these
are permutations of the numbers in a block, so they need not be known: known numbers are written into a scratch cache by
the backend's own writer, one bit of each number's place at a time (0 and 1 are exact in every dtype, FP8 included), and where
the bits are found says where the writer puts each number.  What is learnt is proved on random numbers in several blocks and
heads; a writer that does more than permute is refused.

Cost: about 20 writes of one block when the engine starts; then one gather by index at each read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Writer = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]
    """Takes keys and values [tokens, KV, D], the key and value halves of a cache [blocks, KV, N, D], and slots [tokens]."""

_PROOF_BLOCKS = 3
_PROOF_HEADS = 2
_PROOF_VALUES = 5
"""The proof writes whole numbers from -2 to 2, which every dtype has."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where a block keeps each number of its tokens."""

    key_cells: Tensor  # int64 [N · D]: cell of the block's key half that holds dimension d of token t, at t · D + d
    value_cells: Tensor  # int64 [N · D], in the value half


@dataclass(frozen=True, slots=True, eq=False)
class LearntReader:
    """Reads a cache [blocks, KV, N, 2D] whose blocks hold, for each head, the key half and then the value half."""

    layout: Layout

    def read(self, cache: Tensor, blocks: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Return keys and values; the request's pages are gathered twice, by page and by cell."""
        _, kv_heads, size, width = cache.shape
        dim = width // 2
        pages = -(-tokens // size)
        page = cache[blocks[:pages]].reshape(pages, kv_heads, 2, size * dim)
        keys, values = (
            page[:, :, half].index_select(2, cells).reshape(pages, kv_heads, size, dim).transpose(1, 2)
            .reshape(pages * size, kv_heads, dim)[:tokens]
            for half, cells in enumerate((self.layout.key_cells, self.layout.value_cells))
        )  # fmt: skip
        return keys, values


def learn(write: Writer, tokens: int, size: int, dtype: torch.dtype, cache_dtype: torch.dtype) -> Layout:
    """Return the layout of blocks of *tokens* tokens and heads of *size* numbers.

    *dtype* is that of the keys and values that are written, *cache_dtype* that of the cache.

    Raises:
        CaptureRefused: With reason ``layout``: the writer fails, or does not permute.
    """
    try:
        layout = Layout(*_cells(write, tokens, size, dtype, cache_dtype))
        proved = _proved(write, layout, tokens, size, dtype, cache_dtype)
    except (RuntimeError, NotImplementedError) as error:
        raise CaptureRefused("layout", f"the cache's writer fails: {str(error).splitlines()[0]}") from error
    if not proved:
        raise CaptureRefused("layout", "the cache's writer does more than change the order of keys and values")
    return layout


def _cells(
    write: Writer, tokens: int, size: int, dtype: torch.dtype, cache_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    count = tokens * size
    places = torch.arange(count).reshape(tokens, 1, size)
    found = torch.zeros(2, count, dtype=torch.int64)
    for bit in range(max(count - 1, 1).bit_length()):
        plane = ((places >> bit) & 1).to(dtype)
        cache = _scratch(1, 1, tokens, size, cache_dtype)
        write(plane, plane, *_halves(cache), torch.arange(tokens))
        found |= (_bytes(cache).reshape(2, count, -1) != 0).any(-1).long() << bit
    order = found.argsort(dim=1)
    if not torch.equal(found.gather(1, order), torch.arange(count).expand(2, count)):
        raise CaptureRefused("layout", "the cache's writer leaves cells of a block out, or fills some twice")
    return order[0], order[1]


def _proved(
    write: Writer, layout: Layout, tokens: int, size: int, dtype: torch.dtype, cache_dtype: torch.dtype
) -> bool:
    """Return whether random numbers in scattered blocks are read as they were written."""
    generator = torch.Generator().manual_seed(1)
    shape = (_PROOF_BLOCKS * tokens, _PROOF_HEADS, size)
    keys, values = (torch.randint(_PROOF_VALUES, shape, generator=generator) - 2 for _ in range(2))
    cache = _scratch(_PROOF_BLOCKS, _PROOF_HEADS, tokens, size, cache_dtype)
    blocks = torch.arange(_PROOF_BLOCKS).flip(0)
    slots = (blocks[:, None] * tokens + torch.arange(tokens)).flatten()
    write(keys.to(dtype), values.to(dtype), *_halves(cache), slots)
    read = LearntReader(layout).read(cache, blocks, len(slots))
    return all(_same(stored, number) for stored, number in zip(read, (keys, values), strict=True))


def _same(stored: Tensor, numbers: Tensor) -> bool:
    if stored.dtype.is_floating_point:
        return bool(torch.equal(stored.double(), numbers.double()))
    codes = [stored[numbers == number].unique() for number in numbers.unique()]  # bytes: one code for each number
    return all(len(code) == 1 for code in codes) and len(torch.cat(codes).unique()) == len(codes)


def _scratch(blocks: int, heads: int, tokens: int, size: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(blocks, heads, tokens, 2 * size, dtype=dtype)


def _halves(cache: Tensor) -> tuple[Tensor, Tensor]:
    """Return the key and value halves as the backend cuts them (vLLM 0.32 ``do_kv_cache_update``)."""
    blocks, heads, tokens, width = cache.shape
    keys, values = cache.view(blocks, heads, 2 * tokens, width // 2).chunk(2, dim=2)
    return keys, values


def _bytes(cache: Tensor) -> Tensor:
    return cache.view(torch.uint8) if cache.element_size() > 1 else cache
