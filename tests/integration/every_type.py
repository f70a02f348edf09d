"""A table with every type that the store's tables use, and what each of its rows is, computed without the engine."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from typing import Any

FIRST_NS = 1_700_000_000_123_456_789
FIRST_SECOND = 1_700_000_000
TEXT = "é \t\n\"'\\,;"

COLUMNS = {
    "u8": ("UInt8", "number % 256"),
    "u16": ("UInt16", "number % 65536"),
    "u32": ("UInt32", "number"),
    "u64": ("UInt64", "18446744073709551615 - number"),
    "i8": ("Int8", "toInt16(number % 256) - 128"),
    "i16": ("Int16", "toInt32(number % 65536) - 32768"),
    "i32": ("Int32", "-number"),
    "i64": ("Int64", "-1000000007 * number"),
    "f32": ("Float32", "multiIf(number % 7 = 0, nan, number % 11 = 0, inf, number % 13 = 0, -inf, number / 4)"),
    "f64": ("Float64", "multiIf(number % 7 = 1, nan, number % 11 = 1, inf, number % 13 = 1, -inf, number / 3)"),
    "flag": ("Bool", "number % 2 = 1"),
    "text": ("String", "concat('é \\t\\n\"\\'\\\\,;', toString(number))"),
    "low": ("LowCardinality(String)", "concat('route-', toString(number % 10))"),
    "fixed": ("FixedString(4)", "leftPad(toString(number % 10000), 4, '0')"),
    "kind": ("Enum8('page' = 1, 'mirror' = 2)", "number % 2 + 1"),
    "id": ("UUID", "toUUID(concat('00000000-0000-0000-0000-', leftPad(lower(hex(number)), 12, '0')))"),
    "day": ("Date", "toDate(number % 40000)"),
    "second": ("DateTime('UTC')", "toDateTime(1700000000 + number, 'UTC')"),
    "time": ("DateTime64(9, 'UTC')", "fromUnixTimestamp64Nano(1700000000123456789 + number * 1000000007, 'UTC')"),
    "maybe": ("Nullable(Float64)", "number % 3 = 0 ? NULL : number / 2"),
    "maybe_i": ("Nullable(Int32)", "number % 5 = 0 ? NULL : number"),
    "list": ("Array(UInt16)", "arrayMap(x -> (number + x) % 65536, range(number % 4))"),
    "words": ("Array(LowCardinality(String))", "arrayMap(x -> concat('w', toString(x)), range(number % 3))"),
    "lists": ("Array(Array(Float64))", "number % 2 = 0 ? [] : [[number], []]"),
    "labels": ("Map(LowCardinality(String), String)", "map('k', toString(number), concat('k', toString(number % 3)), '\\'')"),
    "pair": ("Tuple(a UInt8, b String)", "(number % 256, toString(number))"),
    "`heads.layer`": ("Array(UInt16)", "range(number % 3)"),
    "`heads.name`": ("Array(String)", "arrayMap(x -> toString(x), range(number % 3))"),
}
CREATE = (
    f"CREATE TABLE every_type ({', '.join(f'{name} {kind}' for name, (kind, _) in COLUMNS.items())}) "
    "ENGINE = MergeTree ORDER BY u32"
)
NAMES = [name.strip("`") for name in COLUMNS]
NAN = math.nan
_EPOCH = dt.date(1970, 1, 1)


def insert(rows: int) -> str:
    """Return what writes *rows* rows."""
    return f"INSERT INTO every_type SELECT {', '.join(text for _, text in COLUMNS.values())} FROM numbers({rows})"


def row(n: int) -> dict[str, Any]:
    """Return row *n*; times are nanoseconds or seconds since 1970, days are dates."""
    return {
        "u8": n % 256, "u16": n % 65536, "u32": n, "u64": 18446744073709551615 - n, "i8": n % 256 - 128,
        "i16": n % 65536 - 32768, "i32": -n, "i64": -1000000007 * n, "f32": _special(n, 0, n / 4), "f64": _special(n, 1, n / 3),
        "flag": n % 2 == 1, "text": f"{TEXT}{n}", "low": f"route-{n % 10}", "fixed": f"{n % 10000:04d}",
        "kind": "mirror" if n % 2 else "page", "id": str(uuid.UUID(int=n)),
        "day": (_EPOCH + dt.timedelta(days=n % 40000)).isoformat(), "second": FIRST_SECOND + n,
        "time": FIRST_NS + n * 1000000007, "maybe": None if n % 3 == 0 else n / 2, "maybe_i": None if n % 5 == 0 else n,
        "list": [(n + x) % 65536 for x in range(n % 4)], "words": [f"w{x}" for x in range(n % 3)],
        "lists": [[float(n)], []] if n % 2 else [], "labels": {"k": str(n), f"k{n % 3}": "'"},
        "pair": {"a": n % 256, "b": str(n)}, "heads.layer": list(range(n % 3)), "heads.name": [str(x) for x in range(n % 3)],
    }  # fmt: skip


def _special(n: int, rest: int, value: float) -> float:
    for divisor, special in ((7, NAN), (11, math.inf), (13, -math.inf)):
        if n % divisor == rest:
            return special
    return value


def with_one_nan(got: dict[str, Any]) -> dict[str, Any]:
    """Return *got* with every NaN replaced by the one of :func:`row`: in a container an object equals itself."""
    for name in ("f32", "f64"):
        if math.isnan(got[name]):
            got[name] = NAN
    return got
