"""The compiled code of the CPU kernel as Python sees it: ``native/*.h``, by way of ctypes."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from headwatch.errors import CannotCompile, CaptureRefused
from headwatch.native.compiler import compiled

DONE, HANDED_OVER = 0, 1
"""What ``hw_rows`` returns; anything else: there is no memory."""
_P, _I64, _I32, _F32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float


def _fields(*groups: tuple[Any, str]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, kind) for kind, names in groups for name in names.split())


class Layer(ctypes.Structure):
    """``hw_layer``: what is the same in every step."""

    _fields_ = _fields(
        (_P, "key value alibi sinks"),
        (_I64, "query_token_stride query_head_stride output_token_stride output_head_stride block_stride head_stride"),
        (_F32, "scale softcap key_scale value_scale"),
        (_I32, "query_type cache_type output_type heads kv_heads dim value_dim block_tokens window chunk threads layout"),
    )


class Step(ctypes.Structure):
    """``hw_step``: what is the same in every layer."""

    _fields_ = _fields(
        (_P, "tasks rows block_table features span_mass value_mass output_norm"),
        (_I64, "count table_stride"),
        (_I64, "feature_row_stride feature_layer_stride mass_span_stride mass_layer_stride norm_row_stride norm_layer_stride"),
        (_I64, "floats"),
    )


class Library:
    """The functions of the compiled code."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self.rows = self._function(library, "hw_rows", ctypes.c_int, _P, _P, _P, _I64, _P, _P)
        self.rows_quickly = self._function(ctypes.PyDLL(str(path)), "hw_rows", ctypes.c_int, _P, _P, _P, _I64, _P, _P)
        """The same without letting go of the interpreter, which is not worth it where a helper does the work."""
        self.settle = self._function(library, "hw_settle", _I64, _P)
        self.helper_start = self._function(library, "hw_helper_start", _P, _P, _I64)
        self.helper_stop = self._function(library, "hw_helper_stop", None, _P)
        self.engine_processors = self._function(library, "hw_engine_processors", _I64, _I32, _P, _I64)

    @staticmethod
    def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
        return function


def load() -> Library:
    """Return the compiled code of this machine.

    Raises:
        CaptureRefused: With reason ``compiler``.
    """
    # Linked against libgomp.so.1, which torch has loaded: its pool of threads is used, and no second one is made.
    try:
        path = compiled(Path(__file__).with_name("native") / "rows.c", ("-fopenmp", "-pthread"))
    except CannotCompile as error:
        raise CaptureRefused(error.reason, str(error)) from error
    try:
        return Library(path)
    except (OSError, AttributeError) as error:
        raise CaptureRefused("compiler", f"{path} cannot be loaded: {error}") from error
