"""State as named arrays, and named arrays as bytes: what a restart goes on from, without pickle.

Names are paths: ``heads.filter.state``.  The bytes are NumPy's own archive (``.npz``), read with ``allow_pickle=False``.

Every window that is saved writes some dozens of small arrays, and ``numpy.savez`` spends on each over ten times what its bytes
take (an open stream, a header formatted anew).  So the archive is written here: the headers of arrays are kept, and entries are
laid one behind the other, stored, with their checksums (PKWARE, APPNOTE 6.3.10, sections 4.3.7, 4.3.12, 4.3.16).  Less than
4 GiB and 65,536 arrays.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from headwatch.errors import DriftStateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_ENTRY = struct.Struct("<4sHHHHHIIIHH")
_LISTED = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_VERSION = 20
_UTF8 = 0x800
_FIRST_OF_JANUARY_1980 = 0x21
"""The earliest date that such an archive can say: the same arrays are the same bytes."""


def prefixed(name: str, arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Return *arrays* with their names put below *name*."""
    return {f"{name}.{key}": value for key, value in arrays.items()}


def below(name: str, arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Return those of *arrays* whose names are below *name*, without it."""
    return {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}


def to_bytes(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return *arrays* as bytes that :func:`from_bytes` reads."""
    pieces: list[bytes] = []
    listed: list[bytes] = []
    at = 0
    for name, array in arrays.items():
        kept = np.asarray(array, order="C")
        entry, content = f"{name}.npy".encode(), _header(kept.dtype, kept.shape) + kept.tobytes()
        size, checksum = len(content), zlib.crc32(content)
        head = (_VERSION, _UTF8, zipfile.ZIP_STORED, 0, _FIRST_OF_JANUARY_1980, checksum, size, size, len(entry), 0)
        pieces += (_ENTRY.pack(b"PK\3\4", *head), entry, content)
        listed += (_LISTED.pack(b"PK\1\2", _VERSION, *head, 0, 0, 0, 0, at), entry)
        at += _ENTRY.size + len(entry) + size
    contents = b"".join(listed)
    end = _END.pack(b"PK\5\6", 0, 0, len(arrays), len(arrays), len(contents), at, 0)
    return b"".join((*pieces, contents, end))


def from_bytes(saved: bytes) -> dict[str, NDArray[np.generic]]:
    """Return the arrays in *saved*.

    Raises:
        DriftStateError: The bytes are no such archive, or were cut off.
    """
    try:
        with np.load(io.BytesIO(saved), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DriftStateError(f"{len(saved)} bytes of drift state cannot be read: {error}") from error


@lru_cache(maxsize=1024)
def _header(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """Return what stands before the values of an array in a file of its own (``.npy``)."""
    if dtype.hasobject or dtype.fields:
        raise ValueError(f"an array of {dtype} cannot be kept: it has fields, or needs pickle")
    file = io.BytesIO()
    described = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)  # type: ignore[no-untyped-call]  # NumPy gives this no types
    return file.getvalue()
