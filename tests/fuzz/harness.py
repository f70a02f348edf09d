"""Random and mutated inputs: what each test of this folder does with them.

A *taker* takes one input and says in a word what became of it: ``taken``, or the reason why not.  It must not raise, not take a
second, and leave nothing behind: memory may not grow over the second half of the inputs.
"""

from __future__ import annotations

import gc
import random
import resource
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SECONDS = 1.0
GROWTH_KIB = 64 * 1024
_TOKENS = (
    b"\0", b"\xff" * 8,
    b"\x7f\xff\xff\xff", b"-1", b"1e309", b"NaN", b"null", b"true", b"''", b'"', b"\\", b"\r\n", b"{}", b"[]",
    b"[" * 40, b'{"a":' * 40, b"%00", b"%s", b"../", b"\xed\xa0\x80", b"\xf0\x9f\x92\xa9", b"9" * 40,
)  # fmt: skip


def mutate(payload: bytes, source: random.Random) -> bytes:
    """Return *payload* with bytes flipped, cut out, doubled, moved, or replaced by noise and by tokens that are often wrong."""
    data = bytearray(payload)
    if not data:
        return source.randbytes(source.randrange(0, 64))
    start = source.randrange(len(data))
    match source.randrange(7):
        case 0:
            for _ in range(source.randrange(1, 8)):
                data[source.randrange(len(data))] = source.randrange(256)
        case 1:
            del data[start : start + source.randrange(1, 64)]
        case 2:
            data[start:start] = data[start : start + source.randrange(1, 64)]
        case 3:
            return source.randbytes(source.randrange(0, 400))
        case 4:
            data[start : start + source.randrange(0, 4)] = source.choice(_TOKENS)
        case 5:
            return bytes(data[:start])
        case _:
            end = min(len(data), start + source.randrange(1, 32))
            piece = data[start:end]
            del data[start:end]
            place = source.randrange(len(data) + 1)
            data[place:place] = piece
    return bytes(data)


def feed(
    count: int,
    seeds: Sequence[bytes],
    take: Callable[[bytes], str],
    *,
    mutation: Callable[[bytes, random.Random], bytes] = mutate,
    seed: int = 7,
) -> Counter[str]:
    """Give *count* mutants of *seeds* to *take* and return how often it said what."""
    source, said, half = random.Random(seed), Counter[str](), 0
    for number in range(count):
        payload = source.choice(seeds)
        for _ in range(source.choice((1, 1, 1, 2, 4))):
            payload = mutation(payload, source)
        started = time.perf_counter()
        word = take(payload)
        seconds = time.perf_counter() - started
        assert seconds < SECONDS, f"{seconds:.1f} s for {payload!r}"
        assert word, f"no word about {payload!r}"
        said[word] += 1
        if number == count // 2:
            gc.collect()
            half = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - half < GROWTH_KIB, "memory grew over the second half"
    assert said.total() == count
    return said
