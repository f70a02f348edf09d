"""Single rows read back from ``headwatch_rows``, as arrays: what a viewer draws token by token."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwatch.model import FEATURES, Span
from headwatch.wire.mass_code import from_code
from headwatch_exporters.clickhouse.columns import share_code

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch_exporters.clickhouse.connection import Connection

_BYTES = (
    "features", "span_mass", "value_mass", "output_norm", "block_profile", "top_position", "top_weight", "full_weight",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row.  L layers, H heads, K top positions."""

    time_ns: int
    request_id: str
    engine_id: str
    rank: int
    prompt_tokens: int
    position: int
    detail: int
    layers: tuple[int, ...]
    head_offset: int
    """Global number of the first head."""
    spans: tuple[Span, ...]
    """Of the prompt; from ``prompt_tokens`` on the text is generated."""
    features: NDArray[np.float32]  # [L, H, len(FEATURES)]
    span_mass: NDArray[np.float32]  # [spans + 1, L, H]; the last one is the generated text
    value_mass: NDArray[np.float32] | None  # [spans + 1, L, H]
    output_norm: NDArray[np.float32] | None  # [L, H]
    block_tokens: int
    block_mass: NDArray[np.float32]  # [blocks, L, H]
    top_position: NDArray[np.int32] | None  # [L, H, K]; -1: none
    top_weight: NDArray[np.float32] | None  # [L, H, K]
    full_weight: NDArray[np.float16] | None  # [position + 1, L, H]


class RowReader:
    """Reads rows back.  May raise :class:`~headwatch.errors.StoreError`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rows(self, engine_id: str, first: int = 0, last: int = 2**32 - 1, limit: int = 1000) -> list[StoredRow]:
        """Return the rows of the request *engine_id* at positions *first* to *last*, ascending, at most *limit*."""
        encoded = ", ".join(f"base64Encode({name}) AS {name}" for name in _BYTES)
        found = self._connection.query(
            f"""
            SELECT toUnixTimestamp64Nano(time) AS time_ns, * EXCEPT (time, {", ".join(_BYTES)}), {encoded}
            FROM headwatch_rows
            WHERE engine_id = {{engine_id:String}} AND position BETWEEN {{first:UInt32}} AND {{last:UInt32}}
            ORDER BY position, rank, time LIMIT {{limit:UInt32}}
            """,  # noqa: S608 - the names are our own
            {"engine_id": engine_id, "first": first, "last": last, "limit": limit},
        )
        return [_decoded(row) for row in found]


def _decoded(row: dict[str, Any]) -> StoredRow:
    raw = {name: base64.b64decode(row[name]) for name in _BYTES}
    layers, heads = len(row["layers"]), row["heads"]

    def array(name: str, dtype: str, *shape: int) -> NDArray[Any] | None:
        return np.frombuffer(raw[name], dtype).reshape(shape) if raw[name] else None

    spans = zip(*(row[f"spans.{name}"] for name in ("kind", "start", "end", "document", "age")), strict=True)
    return StoredRow(
        time_ns=row["time_ns"],
        request_id=row["request_id"],
        engine_id=row["engine_id"],
        rank=row["rank"],
        prompt_tokens=row["prompt_tokens"],
        position=row["position"],
        detail=row["detail"],
        layers=tuple(row["layers"]),
        head_offset=row["head_offset"],
        spans=tuple(Span(*span) for span in spans),
        features=_features(raw["features"], row["code"]).reshape(layers, heads, len(FEATURES)),
        span_mass=_shares(raw["span_mass"], row["code"]).reshape(-1, layers, heads),
        value_mass=array("value_mass", "<f4", -1, layers, heads),
        output_norm=array("output_norm", "<f4", layers, heads),
        block_tokens=row["block_tokens"],
        block_mass=from_code(np.frombuffer(raw["block_profile"], np.uint8).reshape(-1, layers, heads)),
        top_position=array("top_position", "<i4", layers, heads, row["top_k"]),
        top_weight=array("top_weight", "<f4", layers, heads, row["top_k"]),
        full_weight=array("full_weight", "<f2", -1, layers, heads),
    )


def _features(data: bytes, code: int) -> NDArray[np.float32]:
    """Return the features of each head in turn: codes stand plane by plane, floats head by head."""
    shares = _shares(data, code)
    return shares if code == share_code.FLOAT32 else shares.reshape(len(FEATURES), -1).T


def _shares(data: bytes, code: int) -> NDArray[np.float32]:
    if code == share_code.FLOAT32:
        return np.frombuffer(data, "<f4")
    return share_code.from_code(np.frombuffer(data, np.uint8))
