"""CityHash128 of version 1.0.2: the checksum of ClickHouse's own compressed blocks.

ClickHouse keeps that version for good; later ones give other values.  Nothing that is installed has it, so it is here, in plain
Python: about 25 MB/s of compressed bytes, for the drivers that insist on such blocks.  After CityHash by G. Pike and
J. Alakuijala (MIT license); the tests hold it against the checksums in chDB's own data files.
"""

from __future__ import annotations

from struct import Struct

_MASK = (1 << 64) - 1
_K0 = 0xC3A5C85C97CB3127
_K1 = 0xB492B66FBE98F273
_K2 = 0x9AE16A3B2F90404F
_K3 = 0xC949D7C7509E6557
_MULTIPLIER = 0x9DDFEA08EB382D69
_STRIDE = 128
_WORD = Struct("<Q").unpack_from
_HALF = Struct("<I").unpack_from
_FOUR = Struct("<4Q").unpack_from
Pair = tuple[int, int]


def cityhash128(data: bytes) -> Pair:
    """Return the hash of *data*, of eight bytes at least, as its low and its high word."""
    size = len(data)
    if size < 16:  # noqa: PLR2004 - two words
        return _seeded(b"", 0, _WORD(data, 0)[0] ^ (size * _K0 & _MASK), _WORD(data, size - 8)[0] ^ _K1)
    return _seeded(data, 16, _WORD(data, 0)[0] ^ _K3, _WORD(data, 8)[0])


def _rotated(value: int, by: int) -> int:
    return (value >> by | value << (64 - by)) & _MASK


def _mixed(value: int) -> int:
    return value ^ value >> 47


def _joined(low: int, high: int) -> int:
    """Hash128to64."""
    first = (low ^ high) * _MULTIPLIER & _MASK
    second = (high ^ first ^ first >> 47) * _MULTIPLIER & _MASK
    return (second ^ second >> 47) * _MULTIPLIER & _MASK


def _of_short(data: bytes) -> int:
    """HashLen0to16."""
    size = len(data)
    if size > 8:  # noqa: PLR2004 - more than a word
        last: int = _WORD(data, size - 8)[0]
        return _joined(_WORD(data, 0)[0], _rotated(last + size & _MASK, size)) ^ last
    if size >= 4:  # noqa: PLR2004 - half a word
        return _joined(size + (_HALF(data, 0)[0] << 3) & _MASK, _HALF(data, size - 4)[0])
    if size:
        low, high = data[0] + (data[size >> 1] << 8), size + (data[size - 1] << 2)
        return _mixed(low * _K2 & _MASK ^ high * _K3 & _MASK) * _K2 & _MASK
    return _K2


def _weak(words: tuple[int, int, int, int], low: int, high: int) -> Pair:
    """WeakHashLen32WithSeeds."""
    first, second, third, fourth = words
    low = low + first & _MASK
    high = _rotated(high + low + fourth & _MASK, 21)
    kept = low
    low = low + second + third & _MASK
    return low + fourth & _MASK, high + _rotated(low, 44) + kept & _MASK


def _murmur(data: bytes, start: int, low: int, high: int) -> Pair:
    """CityMurmur: for what is shorter than 128 bytes."""
    size = len(data) - start
    if size <= 16:  # noqa: PLR2004 - two words
        low = _mixed(low * _K1 & _MASK) * _K1 & _MASK
        third = high * _K1 + _of_short(data[start:]) & _MASK
        fourth = _mixed(low + (_WORD(data, start)[0] if size >= 8 else third) & _MASK)  # noqa: PLR2004 - a word
    else:
        third = _joined(_WORD(data, len(data) - 8)[0] + _K1 & _MASK, low)
        fourth = _joined(high + size & _MASK, third + _WORD(data, len(data) - 16)[0] & _MASK)
        low = low + fourth & _MASK
        for at in range(start, len(data) - 16, 16):
            low = (low ^ _mixed(_WORD(data, at)[0] * _K1 & _MASK) * _K1 & _MASK) * _K1 & _MASK
            high ^= low
            third = (third ^ _mixed(_WORD(data, at + 8)[0] * _K1 & _MASK) * _K1 & _MASK) * _K1 & _MASK
            fourth ^= third
    low, high = _joined(low, third), _joined(fourth, high)
    return low ^ high, _joined(high, low)


def _seeded(data: bytes, start: int, x: int, y: int) -> Pair:
    """CityHash128WithSeed; names are those of the source."""
    left = len(data) - start
    if left < _STRIDE:
        return _murmur(data, start, x, y)
    z = left * _K1 & _MASK
    v0 = _rotated(y ^ _K1, 49) * _K1 + _WORD(data, start)[0] & _MASK
    v1 = _rotated(v0, 42) * _K1 + _WORD(data, start + 8)[0] & _MASK
    w0 = _rotated(y + z & _MASK, 35) * _K1 + x & _MASK
    w1 = _rotated(x + _WORD(data, start + 88)[0] & _MASK, 53) * _K1 & _MASK
    at = start
    for _ in range(left // _STRIDE * 2):
        x = _rotated(x + y + v0 + _WORD(data, at + 16)[0] & _MASK, 37) * _K1 & _MASK ^ w1
        y = _rotated(y + v1 + _WORD(data, at + 48)[0] & _MASK, 42) * _K1 & _MASK ^ v0
        z = _rotated(z ^ w0, 33)
        v0, v1 = _weak(_FOUR(data, at), v1 * _K1 & _MASK, x + w0 & _MASK)
        w0, w1 = _weak(_FOUR(data, at + 32), z + w1 & _MASK, y)
        z, x = x, z
        at += 64
    y = y + _rotated(w0, 37) * _K0 + z & _MASK
    x = x + _rotated(v0 + z & _MASK, 49) * _K0 & _MASK
    for back in range(32, left % _STRIDE + 32, 32):  # the rest, from the end: its first piece may overlap what was read
        piece = len(data) - back
        y = _rotated(y - x & _MASK, 42) * _K0 + v1 & _MASK
        w0 = w0 + _WORD(data, piece + 16)[0] & _MASK
        x = _rotated(x, 49) * _K0 + w0 & _MASK
        w0 = w0 + v0 & _MASK
        v0, v1 = _weak(_FOUR(data, piece), v0, v1)
    x, y = _joined(x, v0), _joined(y, w0)
    return _joined(x + v1 & _MASK, w1) + y & _MASK, _joined(x + w1 & _MASK, y + v1 & _MASK)
