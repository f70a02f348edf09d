"""The ClickHouse endpoint as ClickHouse's HTTP interface is: parameters, formats, compression, headers, errors, sessions."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from typing import TYPE_CHECKING, Any

import httpx
import lz4.frame
import pyarrow.ipc
import pyarrow.parquet
import pytest
from backports import zstd

from headwatch_exporters.clickhouse.http import blocks
from headwatch_exporters.clickhouse.http.names import names

from .endpoint_waits import CONFIG, SLOW, code, running, waited
from .endpoints import Served, fill_two_services, serving_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.store

@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_store(tmp_path_factory.mktemp("protocol"), CONFIG) as found:
        fill_two_services(found)
        yield found


def test_alive(served: Served):
    for path in ("", "/", "/ping", "/replicas_status"):
        answer = httpx.get(served.url + path)
        assert (answer.status_code, answer.text) == (200, "Ok.\n")
    assert httpx.get(f"{served.url}/play").status_code == 404


def test_the_query_stands_in_the_url_in_the_body_or_in_both(served: Served):
    assert httpx.get(served.url, params={"query": "SELECT 1"}).text == "1\n"
    assert httpx.post(served.url, content=b"SELECT 2").text == "2\n"
    assert httpx.post(served.url, params={"query": "SELECT 3,"}, content=b"4").text == "3\t4\n"
    assert httpx.post(served.url, params={"query": "SELECT 5 --"}, content=b", 6").text == "5\t6\n", (
        "a line break is between"
    )
    assert httpx.post(f"{served.url}/", content=b"SELECT 7").text == "7\n"
    head = httpx.head(served.url, params={"query": "SELECT 8"})
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "2")


def test_headers_of_an_answer(served: Served):
    answer = served.ask("SELECT number FROM seen WHERE number < 5", query_id="mine")
    assert answer.headers["x-clickhouse-query-id"] == "mine"
    assert answer.headers["x-clickhouse-format"] == "TabSeparated"
    assert answer.headers["x-clickhouse-timezone"] == served.endpoint._reads.catalog.timezone
    assert answer.headers["x-clickhouse-server-display-name"] == "headwatch"
    assert answer.headers["content-type"] == "text/tab-separated-values; charset=UTF-8"
    summary = json.loads(answer.headers["x-clickhouse-summary"])
    assert (summary["result_rows"], summary["written_rows"]) == ("5", "0")
    assert 5 <= int(summary["read_rows"]) <= 64, "one granule"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers


def test_an_id_is_made_where_none_is_given_and_refused_where_it_could_end_a_header(served: Served):
    assert len({served.ask("SELECT 1").headers["x-clickhouse-query-id"] for _ in range(3)}) == 3
    for bad in ("a\r\nSet-Cookie: x", "a b", "é", "x" * 129):
        answer = served.ask("SELECT 1", query_id=bad)
        assert code(answer) == 36
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("query", "status", "number", "name"),
    [
        ("SELEC 1", 400, 62, "SYNTAX_ERROR"),
        ("SELECT 1; SELECT 2", 400, 62, "SYNTAX_ERROR"),
        ("", 400, 62, "SYNTAX_ERROR"),
        ("SELECT nope", 404, 47, "UNKNOWN_IDENTIFIER"),
        ("SELECT nope()", 404, 46, "UNKNOWN_FUNCTION"),
        ("SELECT * FROM nope", 404, 60, "UNKNOWN_TABLE"),
        ("SELECT * FROM nope.nope", 404, 81, "UNKNOWN_DATABASE"),
        ("SELECT 1 FORMAT Nope", 404, 73, "UNKNOWN_FORMAT"),
        ("SELECT toUInt8('x')", 400, 6, "CANNOT_PARSE_TEXT"),
        ("SELECT throwIf(1)", 500, 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("SELECT {x:UInt8}", 500, 456, "UNKNOWN_QUERY_PARAMETER"),
        ("DROP TABLE seen", 500, 164, "READONLY"),
        ("SELECT 1 SETTINGS max_threads = 99", 500, 452, "SETTING_CONSTRAINT_VIOLATION"),
        ("SELECT groupArray(number) FROM numbers(100000000)", 500, 241, "MEMORY_LIMIT_EXCEEDED"),
        ("SELECT number FROM numbers(1000000) SETTINGS max_result_rows = 1000", 500, 396, "TOO_MANY_ROWS_OR_BYTES"),
        ("SELECT " + "1, " * 40_000 + "1", 413, 223, "QUERY_IS_TOO_LARGE"),
        ("SELECT " + "(" * 5000 + "1" + ")" * 5000, 500, 306, "TOO_DEEP_RECURSION"),
        ("SELECT 1 \x00", 400, 62, "SYNTAX_ERROR"),
    ],
)
def test_errors_have_the_number_name_and_status_of_a_server(
    served: Served, query: str, status: int, number: int, name: str
):
    answer = served.ask(query, wait_end_of_query=1)
    assert (code(answer), answer.status_code) == (number, status), answer.text[:300]
    assert answer.text.startswith(f"Code: {number}. DB::Exception: ")
    assert f" ({name}) (version " in answer.text
    assert answer.headers["content-type"] == "text/plain; charset=UTF-8"


def test_long_queries_are_taken_up_to_the_limit(served: Served):
    """Lists of ids that a dashboard's variable fills in: as long as the query may be, and no longer."""
    numbers = ",".join(str(number) for number in range(12_000))
    assert served.values(f"SELECT count() FROM seen WHERE number IN ({numbers})") == [[1000]]
    texts = ",".join("'abc'" for _ in range(10_000))
    assert served.values(f"SELECT count() FROM seen WHERE secret IN ({texts})") == [[0]]
    assert code(served.ask(f"SELECT count() FROM seen WHERE secret IN ({texts},{texts})")) == 223


def test_bytes_that_are_no_text_are_refused(served: Served):
    assert code(httpx.post(served.url, content=b"SELECT '\xff'")) == 36
    assert code(httpx.get(f"{served.url}?query=SELECT%20'%FF'")) == 36
    assert code(httpx.post(served.url, files={"x": b"1"}, params={"query": "SELECT 1"})) == 48


@pytest.mark.parametrize(
    ("given", "type_name", "expected"),
    [
        ("5", "UInt8", 5), ("it's", "String", "it's"), ("a\\nb\\tc\\\\", "String", "a\nb\tc\\"),
        ("\\N", "Nullable(String)", None),
        ("['a','b\\'c']", "Array(String)", ["a", "b'c"]), ("{'k':1}", "Map(String, UInt8)", {"k": 1}),
        ("2024-01-02 03:04:05", "DateTime", "2024-01-02 03:04:05"), ("') OR 1 --", "String", "') OR 1 --"),
        ("1.5", "Decimal(9, 2)", 1.5), ("é", "String", "é"),
    ],
)  # fmt: skip
def test_parameters_are_bound_by_the_engine(served: Served, given: str, type_name: str, expected: Any):
    assert served.values(f"SELECT {{x:{type_name}}}", param_x=given) == [[expected]]


def test_parameters_may_name_tables_and_columns(served: Served):
    query = "SELECT count({c:Identifier}) FROM {d:Identifier}.{t:Identifier}"
    assert served.values(query, param_c="number", param_d="default", param_t="seen") == [[1000]]


FORMATS = sorted(names("""
    Arrow ArrowStream Avro BSONEachRow CSV CSVWithNames CSVWithNamesAndTypes JSON JSONColumns JSONColumnsWithMetadata
    JSONCompact JSONCompactColumns JSONCompactEachRow JSONCompactEachRowWithNames JSONCompactEachRowWithNamesAndTypes
    JSONCompactStrings JSONCompactStringsEachRow JSONEachRow JSONEachRowWithProgress JSONLines JSONObjectEachRow
    JSONStrings JSONStringsEachRow
    Markdown MsgPack NDJSON Native Null ORC Parquet Pretty PrettyCompact PrettyJSONEachRow PrettySpace RowBinary
    RowBinaryWithNames RowBinaryWithNamesAndTypes SQLInsert TSKV TSV TSVRaw TSVWithNames TSVWithNamesAndTypes TabSeparated
    TabSeparatedWithNamesAndTypes Values Vertical XML
"""))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_the_engines_own(served: Served, name: str):
    """By FORMAT, by default_format and by header: the same bytes, which are those of the engine alone."""
    query = "SELECT number AS n, toString(number) AS s FROM numbers(3)"
    stated = served.ask(f"{query} FORMAT {name}")
    assert stated.status_code == 200, stated.text
    assert stated.headers["x-clickhouse-format"] == name
    asked = served.ask(query, default_format=name)
    by_header = httpx.post(served.url, content=query.encode(), headers={"X-ClickHouse-Format": name})
    if not name.startswith(("JSON", "Avro", "XML", "Pretty")):  # those say how long it took, or draw a random marker
        with served.endpoint._reads._engine.handle() as handle:
            assert stated.content == handle.ask(f"{query} FORMAT {name}")
        assert stated.content == asked.content == by_header.content
    assert asked.headers["content-type"] == stated.headers["content-type"] == by_header.headers["content-type"]
    assert (stated.content == b"") == (name == "Null")


def test_binary_formats_can_be_read(served: Served):
    query = "SELECT number AS n, toString(number) AS s FROM numbers(300000) FORMAT"
    tables = [
        pyarrow.parquet.read_table(io.BytesIO(served.ask(f"{query} Parquet").content)),
        pyarrow.ipc.open_file(served.ask(f"{query} Arrow").content).read_all(),
        pyarrow.ipc.open_stream(served.ask(f"{query} ArrowStream").content).read_all(),
    ]
    for table in tables:
        assert table.num_rows == 300_000
        assert table.column("n").to_pylist()[-1] == 299_999


UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress, "deflate": zlib.decompress, "zstd": zstd.decompress, "lz4": lz4.frame.decompress,
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "lz4"])
@pytest.mark.parametrize("rows", [1, 500_000])
def test_answers_are_compressed_as_asked(served: Served, encoding: str, rows: int):
    query = f"SELECT number FROM numbers({rows})"
    plain = served.ask(query).content
    with httpx.stream("POST", served.url, content=query.encode(), params={"enable_http_compression": 1},
                      headers={"Accept-Encoding": encoding}) as answer:  # fmt: skip
        body = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == encoding
    assert len(body) < len(plain) or rows == 1
    assert UNPACK[encoding](body) == plain


def test_nothing_is_compressed_unasked_and_weights_are_heard(served: Served):
    def encoding(header: str, **parameters: Any) -> str | None:
        with httpx.stream(
            "POST", served.url, content=b"SELECT 1", params=parameters, headers={"Accept-Encoding": header}
        ) as answer:
            return answer.headers.get("content-encoding")

    assert encoding("gzip") is None
    assert encoding("gzip;q=0", enable_http_compression=1) is None
    assert encoding("gzip;q=1.0, zstd;q=0.5", enable_http_compression=1) == "gzip"
    assert encoding("gzip, zstd", enable_http_compression=1) == "zstd"
    assert encoding("br, snappy, identity", enable_http_compression=1) is None


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstd.compress), ("lz4", lz4.frame.compress)],
)
def test_requests_may_be_compressed(served: Served, encoding: str, pack: Callable[[bytes], bytes]):
    answer = httpx.post(served.url, content=pack(b"SELECT 12345"), headers={"Content-Encoding": encoding})
    assert answer.text == "12345\n"
    damaged = httpx.post(served.url, content=b"SELECT 1", headers={"Content-Encoding": encoding})
    assert code(damaged) in {62, 271}, "no such stream, or an empty one"
    bomb = httpx.post(
        served.url, content=pack(b"SELECT 1 " + b" " * 50_000_000), headers={"Content-Encoding": encoding}
    )
    assert code(bomb) == 223
    unknown = httpx.post(served.url, content=b"x", headers={"Content-Encoding": "exotic"})
    assert code(unknown) == 89


@pytest.mark.parametrize("rows", [1, 700_000])
def test_compressed_blocks_of_clickhouse_both_ways(served: Served, rows: int):
    query = f"SELECT number, toString(number) FROM numbers({rows})".encode()
    plain = httpx.post(served.url, content=query).content
    answer = httpx.post(
        served.url, content=blocks.pack(query[:9]) + blocks.pack(query[9:]), params={"compress": 1, "decompress": 1}
    )
    assert blocks.unpack(answer.content, 1 << 30) == plain
    damaged = bytearray(blocks.pack(query))
    damaged[-1] ^= 1
    assert code(httpx.post(served.url, content=bytes(damaged), params={"decompress": 1})) == 40


def test_progress_is_sent_where_it_is_asked_for(served: Served):
    query = "SELECT count() FROM numbers(30000000) WHERE sipHash64(number) = 7"
    answer = served.ask(query, send_progress_in_http_headers=1)
    steps = [json.loads(value) for name, value in answer.headers.multi_items() if name == "x-clickhouse-progress"]
    assert steps
    assert all(isinstance(value, str) for step in steps for value in step.values())
    assert [int(step["read_rows"]) for step in steps] == sorted(int(step["read_rows"]) for step in steps)
    assert "x-clickhouse-progress" not in served.ask("SELECT 1").headers


def test_an_error_that_comes_late_breaks_the_answer_off(served: Served):
    """Nobody can take the half of an answer for the whole: the body ends with the error, and never ends properly."""
    body = bytearray()

    def collect(pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            body.extend(piece)

    query = b"SELECT throwIf(number = 2000000) FROM numbers(10000000)"
    with httpx.stream("POST", served.url, content=query) as answer:
        assert answer.status_code == 200
        tag = answer.headers["x-clickhouse-exception-tag"]
        with pytest.raises(httpx.RemoteProtocolError):
            collect(answer.iter_bytes())
    assert bytes(body[-1000:]).endswith(f" {tag}\r\n__exception__\r\n".encode())
    assert b"Code: 395. DB::Exception: " in body[-1000:]
    waiting = served.ask(query.decode(), wait_end_of_query=1)
    assert code(waiting) == 395, "it is short enough to wait for its end"


def test_a_client_that_leaves_ends_its_query(served: Served):
    for drop in (0.2, 0.01):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                served.url,
                content=SLOW.encode(),
                params={"query_id": f"left-{drop}"},
                timeout=httpx.Timeout(5.0, read=drop),
            )
        assert waited(lambda: running(served, "sipHash64") == 0)
        assert served.audit.wait(f"left-{drop}").outcome == "cancelled"
    with httpx.stream(
        "POST", served.url, content=b"SELECT * FROM numbers(100000000000)", params={"query_id": "half"}
    ) as answer:
        pieces = answer.iter_raw()  # kept: the connection is closed with it
        next(pieces)
        assert waited(lambda: running(served, "numbers(100000000000)") == 1)
    assert waited(lambda: running(served, "numbers(100000000000)") == 0)
    assert served.audit.wait("half").outcome == "cancelled"
