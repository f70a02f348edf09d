"""State as named arrays, and named arrays as bytes: what a restart goes on from, without pickle.

Names are paths: ``heads.filter.state``.  The bytes are NumPy's own archive (``.npz``), read with ``allow_pickle=False``.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from headwatch.errors import DriftStateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def prefixed(name: str, arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Return *arrays* with their names put below *name*."""
    return {f"{name}.{key}": value for key, value in arrays.items()}


def below(name: str, arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Return those of *arrays* whose names are below *name*, without it."""
    return {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}


def to_bytes(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return *arrays* as bytes that :func:`from_bytes` reads."""
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, **arrays)
    return archive.getvalue()


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
