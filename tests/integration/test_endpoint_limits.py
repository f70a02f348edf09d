"""Limits, sessions, places and Grafana's requests at the ClickHouse endpoint."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from .endpoint_waits import CONFIG, SLOW, code, running, waited
from .endpoints import Served, fill_two_services, serving_store

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.store


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_store(tmp_path_factory.mktemp("protocol"), CONFIG) as found:
        fill_two_services(found)
        yield found


def test_time_is_limited_and_can_only_be_limited_more(served: Served):
    started = time.monotonic()
    answer = served.ask(SLOW, max_execution_time=0.3)
    assert (answer.status_code, code(answer)) == (408, 159)
    assert time.monotonic() - started < 3.0
    assert code(served.ask(SLOW, max_execution_time=0)) == 452
    assert served.values("SELECT getSetting('max_execution_time')", max_execution_time=99) == [[20]], (
        "cut to what is allowed"
    )
    assert code(served.ask("SELECT sleepEachRow(1)")) == 497


@pytest.mark.parametrize(
    ("setting", "value", "query", "number"),
    [
        ("max_result_rows", 10, "SELECT number FROM numbers(11) SETTINGS max_block_size = 5", 396),
        ("max_result_bytes", 1000, "SELECT number FROM numbers(1000)", 396),
        ("max_rows_to_read", 10, "SELECT count() FROM seen WHERE secret != ''", 158),
        ("max_bytes_to_read", 100, "SELECT count() FROM seen WHERE secret != ''", 307),
        ("max_memory_usage", 1_000_000, "SELECT uniqExact(number) FROM numbers(1000000)", 241),
    ],
)
def test_limits_are_the_engines(served: Served, setting: str, value: int, query: str, number: int):
    assert code(served.ask(query, **{setting: value, "wait_end_of_query": 1})) == number
    assert code(served.ask(f"{query}, {setting} = {value}" if "SETTINGS" in query else f"{query} SETTINGS {setting} = {value}",
                           wait_end_of_query=1)) == number  # fmt: skip


def test_settings_of_formats_are_taken(served: Served):
    assert served.ask(
        "SELECT 18446744073709551615 AS a FORMAT JSONEachRow", output_format_json_quote_64bit_integers=1
    ).text == ('{"a":"18446744073709551615"}\n')
    assert served.ask("SELECT 1, 2 FORMAT CSV", format_csv_delimiter=";").text == "1;2\n"
    assert served.ask("SELECT toDateTime(0)", session_timezone="Asia/Tokyo").text == "1970-01-01 09:00:00\n"
    assert served.ask("SELECT NULL FORMAT TSV SETTINGS format_tsv_null_representation = 'none'").text == "none\n"
    assert served.ask("SELECT number FROM numbers(9)", limit=2, offset=3).text == "3\n4\n"


def test_statements_about_the_store(served: Served):
    assert "seen" in served.ask("SHOW TABLES").text.split()
    assert served.ask("SHOW DATABASES").status_code == 200
    assert served.ask("EXISTS TABLE seen").text == served.ask("EXISTS DATABASE default").text == "1\n"
    assert served.ask("EXISTS TABLE default.nope").text == "0\n"
    assert [row[0] for row in served.values("DESCRIBE TABLE default.seen")] == ["service", "route", "number", "secret"]
    assert [row[:2] for row in served.values("DESCRIBE TABLE (SELECT 1 AS a, 'x' AS b)")] == [
        ["a", "UInt8"],
        ["b", "String"],
    ]
    assert "MergeTree" in served.ask("SHOW CREATE TABLE seen FORMAT TSVRaw").text
    assert served.ask("SHOW COLUMNS FROM seen").status_code == served.ask("SHOW INDEX FROM seen").status_code == 200
    assert "ReadFromMergeTree" in served.ask("EXPLAIN SELECT * FROM seen").text
    assert served.ask("USE default").status_code == served.ask("SET max_threads = 1").status_code == 200
    assert served.values("SELECT count() FROM system.tables WHERE name = 'seen'") == [[1]]
    assert served.values("SELECT count() > 3 FROM information_schema.columns WHERE table_name = 'seen'") == [[1]]


def test_a_session_keeps_its_settings(served: Served):
    assert code(served.ask("SELECT 1", session_id="s1", session_check=1)) == 372
    assert served.ask("SET output_format_json_quote_64bit_integers = 1", session_id="s1").text == ""
    query = "SELECT toUInt64(1) AS a FORMAT JSONEachRow"
    assert served.ask(query, session_id="s1").text == '{"a":"1"}\n'
    assert served.ask(query).text == served.ask(query, session_id="s2").text == '{"a":1}\n'
    assert served.ask(query, session_id="s1", output_format_json_quote_64bit_integers=0).text == '{"a":1}\n'
    assert served.ask(query, session_id="s1", session_check=1, close_session=1).status_code == 200
    assert code(served.ask("SELECT 1", session_id="s1", session_check=1)) == 372
    assert code(served.ask("SELECT 1", session_id="s1", session_timeout=99999)) == 374


def test_a_session_and_an_id_are_of_one_query_at_a_time(served: Served):
    slow = threading.Thread(
        target=lambda: served.ask(SLOW, session_id="busy", query_id="twice", max_execution_time=2), daemon=True
    )
    slow.start()
    assert waited(lambda: running(served, "sipHash64") == 1)
    assert code(served.ask("SELECT 1", session_id="busy")) == 373
    assert code(served.ask("SELECT 1", query_id="twice")) == 216
    slow.join()
    assert served.ask("SELECT 1", session_id="busy", query_id="twice").text == "1\n"


def test_queries_beyond_the_places_wait_and_beyond_the_queue_are_refused(served: Served):
    """Three run, two wait; half a second later the two give up as well."""
    answers: list[httpx.Response] = []

    def ask(query: str) -> None:
        answers.append(served.ask(query, max_execution_time=3))

    threads = [threading.Thread(target=ask, args=(SLOW,), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert waited(lambda: running(served, "sipHash64") == 3)
    waiting = [threading.Thread(target=ask, args=("SELECT 1",), daemon=True) for _ in range(2)]
    for thread in waiting:
        thread.start()
    assert waited(lambda: served.endpoint._reads._places.waiting == 2)
    refused = served.ask("SELECT 1")
    assert (refused.status_code, code(refused)) == (503, 202)
    assert httpx.get(f"http://127.0.0.1:{served.port}/healthz").json() == {"status": "ok"}
    for thread in [*waiting, *threads]:
        thread.join(10)
    assert sorted(code(answer) for answer in answers) == [159, 159, 159, 202, 202]
    assert served.ask("SELECT 1").text == "1\n"


def test_every_read_is_counted_and_audited(served: Served):
    served.ask("SELECT 1", query_id="earlier")
    served.audit.wait("earlier")
    before = served.endpoint.counters
    served.ask("SELECT secret FROM seen WHERE secret = 'of a' AND number IN (2, 4) /* note */", query_id="audited")
    read = served.audit.wait("audited")
    assert (read.user, read.outcome, read.rows, read.bytes) == ("default", "ok", 2, 10)
    assert "of a" not in read.query
    assert "note" not in read.query
    assert read.query.startswith("SELECT secret FROM seen WHERE ")
    assert read.seconds > 0
    assert served.endpoint.counters["ok"] == before["ok"] + 1
    served.ask("SELECT nope", query_id="failed")
    assert served.audit.wait("failed").outcome == "UNKNOWN_IDENTIFIER"


def test_the_requests_of_grafanas_data_source(served: Served):
    """As plugin 4.20 with clickhouse-go 2.47 sends them: the hello, a ping, its lists, a panel; gzip, a deadline of its own."""

    def ask(query: str) -> httpx.Response:
        return httpx.post(
            served.url, content=query.encode(), auth=("default", ""), headers={"Accept-Encoding": "gzip"},
            params={"client_protocol_version": 54460, "default_format": "Native", "database": "default",
                    "max_execution_time": 65, "enable_http_compression": 1},
        )  # fmt: skip

    assert b"headwatch" in ask("SELECT displayName(), version(), revision(), timezone()").content
    assert ask("SELECT 1").content == b"\x01\x01\x011\x05UInt8\x01"
    for query in (
        "SELECT version()", "SELECT timezone()", "SHOW DATABASES", 'SHOW TABLES FROM "default"', 'DESC TABLE "default"."seen"',
        "SELECT name, type FROM system.columns WHERE database = 'default' AND table = 'seen'",
        "SELECT name FROM system.databases WHERE name NOT IN ('system', 'information_schema', 'INFORMATION_SCHEMA')",
        (
            'SELECT toStartOfInterval(toDateTime(number), INTERVAL 60 second) as time, count() FROM "default"."seen" '
            "WHERE ( number >= toDateTime(0) AND number <= toDateTime(1800000000) ) GROUP BY time ORDER BY time LIMIT 1000"
        ),
    ):  # fmt: skip
        answer = ask(query)
        assert answer.status_code == 200, (query, answer.text)
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["x-clickhouse-format"] == "Native"


def test_the_first_question_of_grafana_is_answered_as_its_protocol_has_it(served: Served):
    parameters = {"client_protocol_version": 54460, "default_format": "Native"}
    body = served.ask("SELECT displayName(), version(), revision(), timezone()", **parameters).content
    assert body.startswith(b"\x01\x00\x02\xff\xff\xff\xff\x00\x04\x01\x0ddisplayName()\x06String\x00\x09headwatch")
    assert b"\x0arevision()\x06UInt32\x00\x00\x00\x00\x00" in body
    plain = served.ask("SELECT displayName(), version(), revision(), timezone()", default_format="Native").content
    assert plain.startswith(b"\x04\x01\x0ddisplayName()\x06String")
    assert served.ask("SELECT 1", **parameters).content == b"\x01\x01\x011\x05UInt8\x01"
