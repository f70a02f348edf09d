"""Random and mutated requests to the ClickHouse endpoint: each is answered within a second, counted, and changes nothing."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import random
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from headwatch.config import ClickHouseConfig
from headwatch_exporters.clickhouse.http import blocks
from headwatch_exporters.clickhouse.http.names import names

from .endpoints import Served, fill_two_services, serving_store
from .test_endpoint_load import resident_mib
from .test_endpoint_refusals import ESCAPES, READS, WRITES, state

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.store

GOOD = [
    "SELECT 1", "SELECT * FROM seen", "SELECT service, count(), avg(number) FROM seen GROUP BY service ORDER BY 2 DESC LIMIT 5",
    "WITH x AS (SELECT number AS n FROM numbers(10)) SELECT sum(n) FROM x", "SELECT {a:UInt8} + 1", "SHOW TABLES",
    "DESCRIBE seen",
    "EXPLAIN SELECT * FROM seen WHERE number = 1", "SELECT arrayMap(x -> x + 1, range(5)), map('a', 1)['a'], tuple(1, 'b').2",
    "SELECT * FROM seen AS a JOIN seen AS b USING number WHERE a.number IN (SELECT number FROM numbers(5)) FORMAT JSON",
    "SELECT quantileTDigest(0.9)(number), uniqExact(secret), sumIf(number, route = 'r') FROM seen SETTINGS max_threads = 1",
    "SELECT toStartOfInterval(now(), INTERVAL 1 MINUTE), toDateTime64('2024-01-01', 9), CAST('1' AS Nullable(Int32))",
    "SELECT row_number() OVER (PARTITION BY service ORDER BY number ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM seen",
]  # fmt: skip
SEEDS = [*GOOD, *(query.format(folder="/tmp/nowhere", port=1) for query in (*WRITES, *READS, *ESCAPES))]
TOKENS = sorted(names(r"""
SELECT FROM WHERE GROUP BY ORDER LIMIT UNION ALL JOIN ON USING WITH AS IN NOT NULL AND OR ( ) [ ] { } , . ; : :: -> + - * / %
= != < > ' " ` -- /* */ # @@ $$ 0 1 -1 1e309 nan inf 0x 18446744073709551616 'a' "b" `c` {x:String} {y:Identifier} seen number
system. FORMAT JSON SETTINGS max_threads=1 INTO OUTFILE file( url( numbers( CASE END INTERVAL FINAL SAMPLE PREWHERE HAVING
QUALIFY WINDOW OVER EXPLAIN SHOW \ \0 \x \N é 💥
"""))
NAMES = sorted(names("""
    query query_id session_id session_timeout session_check database default_format compress decompress enable_http_compression
    wait_end_of_query client_protocol_version max_threads max_execution_time readonly param_a param_x param_y user password
    extremes output_format_json_quote_64bit_integers limit offset send_progress_in_http_headers max_result_rows
    additional_table_filters nope
"""))
VALUES = [
    "", "0", "1", "2", "-1", "1e9", "abc", "JSON", "Native", "Parquet", "system", "default", "\\N", "'", "9" * 20, "\x00",
    "\r\nX: y", "é" * 50, "a" * 3000,
]  # fmt: skip
HEADERS = [
    ("Accept-Encoding", "gzip, zstd"), ("Content-Encoding", "gzip"), ("Content-Encoding", "zstd"),
    ("X-ClickHouse-Format", "XML"), ("X-ClickHouse-User", "x"), ("Authorization", "Basic eDp5"),
    ("Content-Type", "multipart/form-data; boundary=x"), ("X-ClickHouse-Database", "default"),
    ("Content-Type", "application/json"),
]  # fmt: skip


def mutated(dice: random.Random, text: str) -> str:
    for _ in range(dice.choice((0, 0, 1, 1, 1, 2, 4, 12))):
        at = dice.randrange(len(text) + 1)
        match dice.randrange(8):
            case 0:
                text = text[:at] + dice.choice(TOKENS) + text[at:]
            case 1:
                text = text[:at] + " " + dice.choice(TOKENS) + " " + text[at:]
            case 2:
                text = text[:at] + text[at + dice.randrange(1, 12) :]
            case 3:
                text = (
                    text[:at] + chr(dice.choice((0, 9, 10, 127, 160, 0x2028, dice.randrange(32, 0xD800)))) + text[at:]
                )
            case 4:
                other = dice.choice(SEEDS)
                text = text[:at] + other[dice.randrange(len(other)) :]
            case 5:
                text = text[:at] + text[at : at + 20] * dice.choice((2, 3, 50)) + text[at + 20 :]
            case 6:
                text = f"SELECT * FROM ({text})"
            case _:
                text = text[:at] + text[at:].swapcase()
    return text[:200_000]


def request(dice: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    """Return method, path, body and headers of one request."""
    query = mutated(dice, dice.choice(SEEDS if dice.random() < 0.4 else GOOD))
    parameters = {dice.choice(NAMES): dice.choice(VALUES) for _ in range(dice.choice((0, 0, 0, 0, 1, 2)))}
    headers = dict(dice.choice(HEADERS) for _ in range(dice.choice((0, 0, 0, 0, 1))))
    body = query.encode("utf-8", "surrogatepass")
    if dice.random() < 0.15:
        parameters["query"], body = query[:4000], b""
    if dice.random() < 0.1:
        body = gzip.compress(body, 1)
        headers["Content-Encoding"] = "gzip"
    if dice.random() < 0.1:
        body = blocks.pack(body)
        parameters["decompress"] = "1"
    if dice.random() < 0.1 and body:
        damaged = bytearray(body)
        for _ in range(dice.randrange(1, 5)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        body = bytes(damaged)
    path = "/clickhouse" + (
        "?" + "&".join(f"{name}={quote(value)}" for name, value in parameters.items()) if parameters else ""
    )
    return dice.choice(("POST", "POST", "POST", "POST", "GET", "HEAD")), path, body, headers


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    config = ClickHouseConfig(max_execution_seconds=0.5, max_memory_bytes=64 << 20, max_result_bytes=16 << 20)
    with serving_store(tmp_path_factory.mktemp("fuzz"), config) as found:
        fill_two_services(found)
        yield found


@pytest.mark.parametrize(
    ("seed", "requests"), [(6, 2_000), pytest.param(7, 25_000, marks=[pytest.mark.long, pytest.mark.timeout(3000)])]
)
def test_whatever_is_asked_is_answered_counted_and_changes_nothing(served: Served, seed: int, requests: int):
    dice = random.Random(seed)
    before, counted = state(served), sum(served.endpoint.counters.values())
    slowest, refused, answered, warm = 0.0, 0, 0, 0.0
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    for number in range(requests):
        method, path, body, headers = request(dice)
        started = time.monotonic()
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        with contextlib.suppress(http.client.IncompleteRead):  # an answer that failed half way is broken off
            text = answer.read()
            assert answer.headers["x-clickhouse-exception-code"] != "1002", (text, path, body[:500])
        took = time.monotonic() - started
        assert took < 1.0, (took, method, path, body[:500], headers)
        slowest = max(slowest, took)
        answered += 1
        if answer.status != 200:
            refused += 1
            assert answer.headers["x-clickhouse-exception-code"], (answer.status, method, path, body[:500])
        assert "x: y" not in {name.lower() for name in answer.headers}
        if answer.isclosed() and answer.headers.get("connection") == "close":
            connection.close()
        if number == requests // 4:
            warm = resident_mib()
    assert served.ask("SELECT 1").text == "1\n"
    assert state(served) == before
    grown = resident_mib() - warm
    counts = served.endpoint.counters
    print(f"{answered} answered, {refused} refused, slowest {slowest:.2f} s, {grown:.0f} MiB more, {counts}")  # noqa: T201
    assert sum(counts.values()) - counted <= answered + 1
    assert sum(counts.values()) - counted >= answered - requests // 5, "all but GET and HEAD without a query"
    assert counts["ok"] > requests // 50
    assert refused > requests // 5
    assert grown < 96.0
