"""How many rows a sampled row stands for, as a whole number.

A row's weight is one over the probability with which it was sampled: that of its request times its own among the request's
rows.  Histograms count in whole numbers, so a weight of 3.3 counts as 3 or as 4, with the odds that make it 3.3 on average:
sums stay unbiased, and the counts of a histogram stay whole.  The draw is a hash of the row's name, so every rank and every
replay draws alike, and another hash than the one that sampled the row.

Cost: a microsecond for a weight that is not whole, nothing else.
"""

from __future__ import annotations

from hashlib import blake2b

LARGEST = 1 << 20
"""A weight beyond it is a mistake or an attack: one row must not outweigh a window."""
_WHOLE = 1e-4
"""Weights travel as float32: what is so near to a whole number is meant to be it."""


def whole_weight(weight: float, engine_id: str, position: int = -1) -> int:
    """Return *weight* as a whole number in [1, LARGEST], rounded at random by the name of what it belongs to."""
    if weight == 1.0:
        return 1
    weight = min(max(weight, 1.0), float(LARGEST))
    nearest = round(weight)
    if abs(weight - nearest) <= _WHOLE * weight:
        return nearest
    low = int(weight)
    name = f"{position}|{engine_id}".encode("utf-8", "surrogatepass")
    draw = int.from_bytes(blake2b(name, digest_size=8, person=b"hw-weight").digest(), "big") / 2.0**64
    return low + (draw < weight - low)
