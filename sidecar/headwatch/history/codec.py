"""An observed window as bytes and back: what the history, exported recordings and backtests are made of.

Everything an :class:`~headwatch.observed.ObservedWindow` carries comes back, and comes back equal, with one stated loss: the
means of heads are kept with 16 significant bits (a relative error of at most 1.5e-5, a hundredth of what sampling leaves open).
:func:`rounded` makes that loss; whoever steps a detector does it on rounded values, so that what is replayed from the history
gives the same alarms to the last bit.

The bytes are one version byte, then zlib over msgpack.  The four bytes of each number are stored plane by plane, because
neighbours share their exponents and the last plane is empty: about 2.2 bytes a number.  No pickle.

Cost: 5,120 heads x 6 features take 68 kB and 1.5 ms to write, 0.6 ms to read, a stratum and window.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headwatch.errors import HistoryError
from headwatch.findings import CanaryExhibit, DeployEvent
from headwatch.observed import ObservedRequest, ObservedWindow, Scope, SignalValue, StratumWindow
from headwatch.records import Stratum

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1
_LEVEL = 1
_MOST_BYTES = 1 << 30
"""What one window may come to when it is unpacked: a file that says more is no history of ours."""


class _Stratum(msgspec.Struct, array_like=True):
    key: list[str]
    heads: int
    features: int
    streams: int
    values: bytes  # float32 planes
    rows: bytes  # float64
    covariates: bytes  # float64


class _Window(msgspec.Struct, array_like=True):
    number: int
    start_ns: int
    end_ns: int
    strata: list[_Stratum]
    signals: list[tuple[list[str], dict[str, SignalValue]]]
    traffic: dict[str, float]
    telemetry: dict[str, float]
    requests: list[ObservedRequest]
    canaries: list[CanaryExhibit]
    deploys: list[DeployEvent]


def rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return *values* as they come back from bytes: 16 significant bits; NaN stays NaN."""
    return _packed(values).view("<f4").astype(np.float64).reshape(values.shape)


def encode(window: ObservedWindow) -> bytes:
    """Return *window* as bytes that :func:`decode` reads."""
    plain = _Window(
        window.number, window.start_ns, window.end_ns,
        [
            _Stratum(
                _texts(stratum), seen.heads, seen.values.shape[0], seen.values.shape[1], _planes(seen.values),
                seen.rows.astype("<f8").tobytes(), seen.covariates.astype("<f8").tobytes(),
            )
            for stratum, seen in window.strata.items()
        ],
        [(_texts(scope), values) for scope, values in window.signals.items()],
        window.traffic, window.telemetry, list(window.requests), list(window.canaries), list(window.deploys),
    )  # fmt: skip
    return bytes([VERSION]) + zlib.compress(msgspec.msgpack.encode(plain), _LEVEL)


def decode(kept: bytes) -> ObservedWindow:
    """Return the window in *kept*.

    Raises:
        HistoryError: The bytes are no window, were cut off, or are of a newer version of headwatch.
    """
    if kept[:1] != bytes([VERSION]):
        said = kept[0] if kept else "nothing"
        raise HistoryError(f"a window of version {said} cannot be read by this headwatch, which reads version {VERSION}")
    try:
        unpacker = zlib.decompressobj()
        packed = unpacker.decompress(kept[1:], _MOST_BYTES)
        if not unpacker.eof:
            raise HistoryError(f"{len(kept)} bytes of history were cut off")
        plain = msgspec.msgpack.decode(packed, type=_Window)
        strata = {Stratum(*item.key): _stratum(item) for item in plain.strata}  # type: ignore[arg-type]  # phase is a str here
        signals = {Scope(*key): values for key, values in plain.signals}
    except (zlib.error, msgspec.DecodeError, ValueError, TypeError) as error:
        raise HistoryError(f"{len(kept)} bytes of history cannot be read: {error}") from error
    return ObservedWindow(
        plain.number, plain.start_ns, plain.end_ns, strata, signals, plain.traffic, plain.telemetry,
        tuple(plain.requests), tuple(plain.canaries), tuple(plain.deploys),
    )  # fmt: skip


def _texts(key: Stratum | Scope) -> list[str]:
    """Return the fields of *key* in order; fields that are added later have defaults, so that older bytes are read too."""
    return [getattr(key, field.name) for field in dataclasses.fields(key)]


def _stratum(item: _Stratum) -> StratumWindow:
    planes = np.frombuffer(item.values, np.uint8).reshape(4, item.features * item.streams)
    values = np.ascontiguousarray(planes.T).view("<f4").astype(np.float64).reshape(item.features, item.streams)
    rows, covariates = (np.frombuffer(kept, "<f8").astype(np.float64) for kept in (item.rows, item.covariates))
    if len(rows) != item.features:
        raise HistoryError(f"a stratum of {item.features} features has rows of {len(rows)}")
    return StratumWindow(values, rows, covariates, item.heads)


def _packed(values: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Return *values* as float32 bits whose last byte is zero, rounded to the nearest."""
    bits = values.astype("<f4").ravel().view("<u4")
    finite = np.isfinite(values.ravel())
    return np.where(finite, (bits + np.uint32(0x80)) & np.uint32(0xFFFFFF00), bits & np.uint32(0xFFFF0000)).astype("<u4")


def _planes(values: NDArray[np.float64]) -> bytes:
    return np.ascontiguousarray(_packed(values).view(np.uint8).reshape(-1, 4).T).tobytes()
