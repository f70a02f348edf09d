"""Real clients of the ClickHouse endpoint: every type of the store comes back equal, in each format that a client asks for."""

from __future__ import annotations

import csv
import datetime as dt
import itertools
import json
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import clickhouse_connect
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from headwatch.config import ClickHouseConfig

from ..peers import node_modules
from . import every_type
from .endpoints import Served, serving_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

pytestmark = pytest.mark.store

QUERY = "SELECT * FROM every_type ORDER BY u32"
CONFIG = ClickHouseConfig(max_execution_seconds=600.0, max_memory_bytes=2 << 30, max_result_bytes=4 << 30)


@pytest.fixture(scope="module", params=[10_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, int]]:
    with serving_store(tmp_path_factory.mktemp("clients"), CONFIG) as served:
        served.write(every_type.CREATE)
        served.write(every_type.insert(request.param))
        yield served, request.param


def assert_equal(found: Iterable[dict[str, Any]], rows: int) -> None:
    """Hold *found*, with values as :func:`every_type.row` has them, against what was written."""
    count = 0
    for n, got in enumerate(found):
        expected = every_type.row(n)
        if every_type.with_one_nan(got) != expected:
            assert got == expected, {name: value for name, value in got.items() if expected.get(name) != value}
        count += 1
    assert count == rows


def driver(served: Served, compress: bool | str) -> Any:
    return clickhouse_connect.get_client(
        host="127.0.0.1", port=served.port, proxy_path="clickhouse", compress=compress, send_receive_timeout=600
    )


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip", "deflate"])
def test_clickhouse_connect(filled: tuple[Served, int], compress: bool | str):
    """Native, block by block: nothing of any block is lost, compressed or not."""
    served, rows = filled
    client = driver(served, compress)
    formats = {"DateTime64": "int", "DateTime": "int", "UUID": "string", "FixedString": "string", "Date": "native"}
    with client.query_rows_stream(QUERY, query_formats=formats) as stream:
        assert_equal((_of_native(values) for values in stream), rows)
    client.close()


def _of_native(values: Iterable[Any]) -> dict[str, Any]:
    got = dict(zip(every_type.NAMES, values, strict=True))
    return {**got, "day": got["day"].isoformat(), "pair": dict(got["pair"])}


@pytest.mark.parametrize("compression", ["no", "yes"])
@pytest.mark.parametrize("form", ["JSONEachRow", "JSONCompactEachRow", "Parquet", "ArrowStream"])
def test_the_client_of_npm(filled: tuple[Served, int], tmp_path: Path, form: str, compression: str):
    served, rows = filled
    modules = node_modules()
    if modules is None:
        pytest.skip("Node or @clickhouse/client is not on this machine: install Node, then run `make peers`")
    path = tmp_path / "got"
    script = Path(__file__).with_name("every_type.mjs")
    command = [
        "node",
        str(script),
        f"http://127.0.0.1:{served.port}",
        str(modules.parent),
        form,
        str(path),
        compression,
    ]
    subprocess.run(command, check=True, timeout=600, capture_output=True)
    with path.open("rb") as lines:
        if form == "JSONEachRow":
            assert_equal((_of_json(json.loads(line)) for line in lines), rows)
        elif form == "JSONCompactEachRow":
            assert_equal((_of_json(dict(zip(every_type.NAMES, json.loads(line), strict=True))) for line in lines), rows)
        elif form == "Parquet":
            assert_equal(_of_arrow(pyarrow.parquet.ParquetFile(lines).iter_batches()), rows)
        else:
            assert_equal(_of_arrow(pyarrow.ipc.open_stream(lines)), rows)


def _of_json(got: dict[str, Any]) -> dict[str, Any]:
    """Return a row of JSON as values: 64-bit numbers and NaN come as text, times as a day and a time of day."""
    for name in ("u64", "i64"):
        got[name] = int(got[name])
    for name in ("f32", "f64"):
        got[name] = float(got[name])
    got["second"] = _seconds(got["second"])
    got["time"] = _nanoseconds(got["time"])
    return got


def _seconds(text: str) -> int:
    return int(dt.datetime.fromisoformat(f"{text}+00:00").timestamp())


def _nanoseconds(text: str) -> int:
    whole, _, part = text.partition(".")
    return _seconds(whole) * 10**9 + int(part.ljust(9, "0"))


def _of_arrow(batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    """Yield rows; the types of Arrow that Python has no equal for are taken as numbers."""
    for batch in batches:
        columns = {name: _column(name, batch.column(name)) for name in every_type.NAMES}
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def _column(name: str, column: pa.Array) -> list[Any]:
    if name == "time":
        return column.cast(pa.int64()).to_pylist()
    if name == "second":
        milliseconds = pa.types.is_timestamp(column.type) and column.type.unit == "ms"
        return [value // 1000 if milliseconds else value for value in column.cast(pa.int64()).to_pylist()]
    change = _OF_ARROW.get(name, lambda value: value)
    return [change(value) for value in column.to_pylist()]


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


_OF_ARROW: dict[str, Callable[[Any], Any]] = {
    "text": _text,
    "low": _text,
    "fixed": _text,
    "kind": lambda value: {1: "page", 2: "mirror"}.get(value, _text(value)),
    "id": lambda value: str(uuid.UUID(bytes=value)) if isinstance(value, bytes) else str(value),
    "day": lambda value: value.isoformat(),
    "labels": dict,
}


@pytest.mark.parametrize("form", ["CSVWithNames", "TabSeparatedWithNames"])
@pytest.mark.parametrize("encoding", [[], ["--compressed"]])
def test_curl(filled: tuple[Served, int], tmp_path: Path, form: str, encoding: list[str]):
    served, rows = filled
    if shutil.which("curl") is None:
        pytest.skip("curl is not on this machine")
    path = tmp_path / "got"
    command = ["curl", "-sS", "--fail", *encoding, "-o", str(path), "--data-binary", "@-",
               f"{served.url}?enable_http_compression=1&default_format={form}"]  # fmt: skip
    subprocess.run(command, input=QUERY.encode(), check=True, timeout=600)
    if form == "CSVWithNames":
        with path.open(newline="") as lines:
            reader = csv.reader(lines)
            names = next(reader)
            assert_equal(
                (_of_text(dict(zip(_plain_names(names), line, strict=True)), null="\\N") for line in reader), rows
            )
    else:
        with path.open(newline="\n") as lines:
            fields = (line.removesuffix("\n").split("\t") for line in lines)
            assert next(fields) == every_type.NAMES
            assert_equal((_of_text(_unescaped(line), null=None) for line in fields), rows)


def _plain_names(names: list[str]) -> list[str]:
    """Return the names of columns: CSV spreads a tuple over as many, named by its parts."""
    return names if names == every_type.NAMES else [name.replace("pair.", "pair_") for name in names]


_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\", "'": "'", "0": "\0", "b": "\b", "f": "\f"}


_LITERALS = ("list", "words", "lists", "labels", "pair", "heads.layer", "heads.name")


def _unescaped(fields: list[str]) -> dict[str, Any]:
    """Return a row of TabSeparated as text; None for NULL."""
    row: dict[str, Any] = {}
    for name, field in zip(every_type.NAMES, fields, strict=True):
        if field == "\\N":
            row[name] = None
            continue
        if name in _LITERALS:  # their own quoting is all there is
            row[name] = field
            continue
        marks = iter(field)
        row[name] = "".join(_ESCAPES[next(marks)] if mark == "\\" else mark for mark in marks)
    return row


def _of_text(got: dict[str, Any], null: str | None) -> dict[str, Any]:
    """Return a row of text as values.  Arrays and maps are literals of ClickHouse, of which these are Python's too."""
    import ast

    if "pair_a" in got:
        got["pair"] = f"({got.pop('pair_a')},{ast.unparse(ast.Constant(got.pop('pair_b')))})"
    for name in ("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"):
        got[name] = int(got[name])
    for name in ("f32", "f64"):
        got[name] = float(got[name])
    got["flag"] = got["flag"] == "true"
    got["second"], got["time"] = _seconds(got["second"]), _nanoseconds(got["time"])
    for name, kind in (("maybe", float), ("maybe_i", int)):
        got[name] = None if got[name] == null else kind(got[name])
    for name in _LITERALS:
        got[name] = ast.literal_eval(got[name])
    got["pair"] = dict(zip(("a", "b"), got["pair"], strict=True))
    return got


def test_clickhouse_connect_as_an_application_uses_it(filled: tuple[Served, int]):
    """Parameters, data frames, Arrow, raw formats, streams, sessions, errors that come early and late."""
    served, rows = filled
    client = driver(served, compress=True)
    assert client.ping()
    assert client.server_version == served.endpoint._reads.catalog.version
    parameters = {
        "text": "it's\n\t\\",
        "list": [1, 2],
        "none": None,
        "when": dt.datetime(2024, 1, 2, tzinfo=dt.UTC),
    }
    query = "SELECT {text:String}, {list:Array(Int32)}, {none:Nullable(Int8)}, {when:DateTime}"
    assert client.query(query, parameters=parameters).result_rows[0][:3] == ("it's\n\t\\", [1, 2], None)
    assert len(client.query_df("SELECT u8, text, maybe FROM every_type")) == rows
    assert client.query_arrow("SELECT u64, text FROM every_type").num_rows == rows
    assert client.raw_query("SELECT 1", fmt="Parquet")[:4] == b"PAR1"
    assert client.command("SELECT 5") == 5
    with client.query_column_block_stream("SELECT u32 FROM every_type") as blocks:
        assert sum(len(block[0]) for block in blocks) == rows
    assert client.query("SELECT * FROM every_type LIMIT 0").column_names == tuple(every_type.NAMES)
    with pytest.raises(DatabaseError, match="Code: 47"):
        client.query("SELECT nope")
    with pytest.raises(DatabaseError, match="Code: 164"):
        client.command("DROP TABLE every_type")
    with pytest.raises(DatabaseError):
        client.insert("every_type", [[1]], column_names=["u8"])
    client.close()


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip", "deflate"])
@pytest.mark.parametrize("at", [1_000_000, 3_000_000, 5_000_000])
def test_an_answer_that_fails_half_way_is_never_taken_for_a_whole_one(
    filled: tuple[Served, int], compress: bool | str, at: int
):
    client = driver(filled[0], compress)
    with pytest.raises(StreamFailureError, match="Code: 395"):
        client.query(f"SELECT throwIf(number = {at}), sipHash64(number) FROM numbers(10000000)").result_rows  # noqa: B018 - read when it is asked for
    client.close()


def test_many_clients_at_once_get_each_their_own(filled: tuple[Served, int]):
    from concurrent.futures import ThreadPoolExecutor

    served, _ = filled
    with ThreadPoolExecutor(16) as threads:
        answers = threads.map(
            lambda n: served.ask(f"SELECT {n}, count() FROM every_type WHERE u32 >= {n}").text, range(40)
        )
        for n, answer in zip(itertools.count(), answers, strict=False):
            assert answer == f"{n}\t{filled[1] - n}\n"
