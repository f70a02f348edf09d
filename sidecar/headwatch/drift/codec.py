"""Baselines as bytes and back: nested dataclasses of arrays and plain values, without pickle.

A baseline is a tree: dataclasses, mappings, tuples, plain values, and arrays at its leaves.  The tree is written as JSON, in
which each array is a number; the arrays follow in NumPy's own archive.  Reading makes objects of the dataclasses in
:data:`MODULES` and of no others, so bytes from a stranger can make nothing but numbers.  A field that a class has gained since
takes its default; one that it has lost, or that has no default, makes the bytes unreadable, and the error says to learn anew.

Everything comes back equal, arrays with their types and to the last bit.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from headwatch.drift.saved import from_bytes, to_bytes
from headwatch.errors import DriftStateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

T = TypeVar("T")

VERSION = 2
MODULES = ("evalue", "parts", "pool", "regression", "scope", "slow_noise", "stratum", "stream")
"""Modules of :mod:`headwatch.drift` whose dataclasses may be read."""
_PLAIN = (bool, int, float, str)
_TREE = "tree"


def dumps(value: object) -> bytes:
    """Return *value*, a dataclass of :data:`MODULES`, as bytes that :func:`loads` reads."""
    arrays: dict[str, NDArray[np.generic]] = {}
    tree = {"version": VERSION, "value": _plain(value, arrays)}
    return to_bytes({_TREE: np.frombuffer(msgspec.json.encode(tree), np.uint8), **arrays})


def loads(kept: bytes, wanted: type[T]) -> T:
    """Return the *wanted* object that is in *kept*.

    Raises:
        DriftStateError: The bytes are something else, were cut off, or come from a version whose classes were others.
    """
    arrays = from_bytes(kept)
    try:
        tree = msgspec.json.decode(arrays[_TREE].tobytes())
        if tree["version"] != VERSION:
            raise DriftStateError(f"a baseline of version {tree['version']} cannot be read; learn it anew")
        value = _object(tree["value"], arrays, _classes())
    except (KeyError, TypeError, ValueError, IndexError, msgspec.DecodeError) as error:
        raise DriftStateError(f"{len(kept)} bytes are no baseline that can be read ({error!r}); learn it anew") from error
    if not isinstance(value, wanted):
        raise DriftStateError(f"{len(kept)} bytes hold a {type(value).__name__}, not a {wanted.__name__}")
    return value


def _plain(value: object, arrays: dict[str, NDArray[np.generic]]) -> Any:
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name), arrays) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, "fields": fields}
    if isinstance(value, tuple):
        return {"tuple": [_plain(item, arrays) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_plain(key, arrays), _plain(item, arrays)] for key, item in value.items()]}
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, _PLAIN):
        return value
    raise DriftStateError(f"{value!r} of type {type(value).__name__} cannot be kept")


def _object(tree: Any, arrays: Mapping[str, NDArray[np.generic]], classes: Mapping[str, type]) -> Any:
    if not isinstance(tree, dict):
        return tree
    [(kind, content), *_] = tree.items()
    if kind == "array":
        return arrays[content]
    if kind == "tuple":
        return tuple(_object(item, arrays, classes) for item in content)
    if kind == "dict":
        return {_object(key, arrays, classes): _object(item, arrays, classes) for key, item in content}
    if kind == "float":
        return float(content)
    fields = {name: _object(item, arrays, classes) for name, item in tree["fields"].items()}
    return classes[content](**fields)


def _classes() -> dict[str, type]:
    return {
        name: kind
        for module in MODULES
        for name, kind in vars(importlib.import_module(f"headwatch.drift.{module}")).items()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }
