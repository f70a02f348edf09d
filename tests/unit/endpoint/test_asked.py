"""A request to the ClickHouse endpoint, read: what is the query, what a parameter of it, what a setting, what neither."""

from __future__ import annotations

import pytest

from headwatch.config import ClickHouseConfig
from headwatch_exporters.clickhouse.http import hello
from headwatch_exporters.clickhouse.http.asked import Asked, read_request
from headwatch_exporters.clickhouse.http.catalog import Catalog
from headwatch_exporters.clickhouse.http.quoting import literal, parameter
from headwatch_exporters.clickhouse.http.refusal import CODES, QueryError, from_engine
from headwatch_exporters.clickhouse.http.sessions import MAX_SESSIONS, Sessions
from headwatch_exporters.clickhouse.http.settings import check_settings, in_force, limits

CEILINGS = limits(ClickHouseConfig())


def asked(url: dict[str, str] | None = None, headers: dict[str, str] | None = None, body: bytes = b"") -> Asked:
    return read_request(url or {}, headers or {}, body, 1000)


def test_url_and_body_are_joined_by_a_line_break():
    assert asked({"query": "SELECT"}, body=b"1").query == "SELECT\n1"
    assert asked({"query": "SELECT 1"}).query == asked(body=b"SELECT 1").query == "SELECT 1"


def test_what_is_of_the_transport_is_no_setting():
    given = asked({
        "query": "SELECT 1", "param_x": "5", "max_threads": "1", "user": "u", "password": "p", "compress": "1",
        "session_id": "s", "enable_http_compression": "1", "wait_end_of_query": "1", "database": "d", "buffer_size": "9",
        "stacktrace": "1",
    }, {"accept-encoding": "gzip", "x-clickhouse-format": "JSON"})  # fmt: skip
    assert (given.settings, given.parameters) == ({"max_threads": "1"}, {"x": "5"})
    assert (given.compress, given.wait_end, given.accept_encoding) == (True, True, "gzip")
    assert (given.default_format, given.database, given.session_id) == ("JSON", "d", "s")
    assert asked({}, {"accept-encoding": "gzip"}).accept_encoding == "", "nobody asked for compression"


@pytest.mark.parametrize(
    ("url", "headers", "body", "name"),
    [
        ({}, {}, b"x" * 1001, "QUERY_IS_TOO_LARGE"),
        ({"query": "x" * 600}, {}, b"x" * 600, "QUERY_IS_TOO_LARGE"),
        ({}, {}, b"\xff", "BAD_ARGUMENTS"),
        ({}, {}, b"SELECT 1\0", "SYNTAX_ERROR"),
        ({"query_id": "a b"}, {}, b"", "BAD_ARGUMENTS"),
        ({}, {"x-clickhouse-query-id": "a\r\nb"}, b"", "BAD_ARGUMENTS"),
        ({"session_id": "s" * 129}, {}, b"", "BAD_ARGUMENTS"),
        ({"client_protocol_version": "-1"}, {}, b"", "BAD_ARGUMENTS"),
        ({"client_protocol_version": "9" * 40}, {}, b"", "BAD_ARGUMENTS"),
        ({}, {"content-type": "multipart/form-data; boundary=x"}, b"", "NOT_IMPLEMENTED"),
        ({}, {"content-encoding": "gzip"}, b"x", "CANNOT_DECOMPRESS"),
        ({}, {"content-encoding": "x" * 99}, b"x", "UNKNOWN_COMPRESSION_METHOD"),
        ({"decompress": "1"}, {}, b"x", "CANNOT_DECOMPRESS"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(url: dict[str, str], headers: dict[str, str], body: bytes, name: str):
    with pytest.raises(QueryError) as refused:
        asked(url, headers, body)
    assert (refused.value.name, refused.value.code) == (name, CODES[name])


@pytest.mark.parametrize(
    ("message", "code", "name", "text"),
    [
        ("Code: 62. DB::Exception: Syntax error: x. (SYNTAX_ERROR)", 62, "SYNTAX_ERROR", "Syntax error: x."),
        ("Code: 47. DB::Exception: a (b) c (UNKNOWN_IDENTIFIER)", 47, "UNKNOWN_IDENTIFIER", "a (b) c"),
        ("Query failed: Code: 164. DB::Exception: Code: 164. DB::Exception: no (READONLY) (version 26.9.2.1). (READONLY)",
         164, "READONLY", "no"),
        ("Code: 395. DB::Exception: line\nline. (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO)", 395,
         "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO", "line\nline."),
        ("nothing that is known", 1002, "UNKNOWN_EXCEPTION", "nothing that is known"),
        ("", 1002, "UNKNOWN_EXCEPTION", "the engine failed and did not say why"),
    ],
)  # fmt: skip
def test_what_the_engine_says_is_taken_apart(message: str, code: int, name: str, text: str):
    error = from_engine(message)
    assert (error.code, error.name, error.text) == (code, name, text)
    assert error.body("1.2").decode() == f"Code: {code}. DB::Exception: {text} ({name}) (version 1.2)\n"


def test_a_long_error_is_cut():
    assert len(QueryError("SYNTAX_ERROR", "x" * 100_000).body("1")) < 5000


@pytest.mark.parametrize("text", ["", "a", "it's", "\\", "a\nb\tc\r\0", "\\'", "é"])
def test_quoting_leaves_nothing_that_ends_a_literal(text: str):
    quoted = literal(text)
    assert quoted[0] == quoted[-1] == "'"
    assert "'" not in quoted[1:-1].replace("\\\\", "").replace("\\'", "")
    assert not {"\n", "\t", "\0", "\r"} & {*quoted, *parameter(text)}


def test_limits_are_lowered_and_never_raised():
    assert check_settings({"max_execution_time": "0.5", "max_threads": "1"}, CEILINGS) == {
        "max_execution_time": "0.5", "max_threads": "1",
    }  # fmt: skip
    assert check_settings({"max_result_rows": "5"}, CEILINGS) == {"max_result_rows": "5"}, (
        "where there is none, any will do"
    )
    assert check_settings({"max_execution_time": "65"}, CEILINGS) == {"max_execution_time": "30"}, (
        "a driver's own deadline"
    )
    for name, value in [("max_execution_time", "0"), ("max_threads", "3"), ("max_memory_usage", "0")]:
        with pytest.raises(QueryError, match="shouldn't be greater") as refused:
            check_settings({name: value}, CEILINGS)
        assert refused.value.code == 452
    for value in ("-1", "x", "", "1.5", "1e3", "0x1", "9" * 30, "٣"):
        with pytest.raises(QueryError, match="Cannot parse setting max_threads"):
            check_settings({"max_threads": value}, CEILINGS)


@pytest.mark.parametrize(
    "name",
    ["output_format_schema", "format_schema", "format_template_resultset", "output_format_avro_confluent_subject", "allow_ddl",
     "additional_table_filters", "readonly", "enable_analyzer", "output_format_enable_streaming", "max_block_sizes", "",
     "output_format_x; DROP"],
)  # fmt: skip
def test_settings_outside_the_list_are_refused(name: str):
    with pytest.raises(QueryError, match="in readonly mode") as refused:
        check_settings({name: "0"}, CEILINGS)
    assert refused.value.code == 164


def test_what_is_always_in_force_cannot_be_overridden():
    settings = in_force({"max_threads": "1", "log_comment": "mine"}, CEILINGS, "mark", "{'t': 'x'}")
    assert (settings["max_threads"], settings["log_comment"], settings["allow_ddl"]) == ("1", "mark", "0")
    assert settings["additional_table_filters"] == "{'t': 'x'}"
    assert settings["optimize_move_to_prewhere"] == "0"
    assert "additional_table_filters" not in in_force({}, CEILINGS, "mark")
    assert check_settings({"readonly": "1", "async_insert": "0", "log_comment": "x"}, CEILINGS) == {}


def test_sessions_end_and_make_room():
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    first = Asked("", "q1", session_id="s", session_timeout="5")
    session = sessions.take("u", first)
    with pytest.raises(QueryError, match="locked"):
        sessions.take("u", Asked("", "q2", session_id="s"))
    session.settings["limit"] = "1"
    sessions.give_back("u", first, session)
    assert sessions.take("u", Asked("", "q3", session_id="s", session_timeout="5")).settings == {"limit": "1"}
    sessions.give_back("u", first, session)
    assert sessions.take("other", Asked("", "q4", session_id="s")).settings == {}, "an id is its user's own"
    now[0] = 6.0
    with pytest.raises(QueryError, match="not found"):
        sessions.take("u", Asked("", "q5", session_id="s", session_check=True))
    for number in range(2 * MAX_SESSIONS):
        one = Asked("", f"n{number}", session_id=f"n{number}")
        sessions.give_back("u", one, sessions.take("u", one))
    assert len(sessions._sessions) == MAX_SESSIONS
    for bad in ("0", "3601", "x", "-1", "1.5"):
        with pytest.raises(QueryError, match="session_timeout"):
            sessions.take("u", Asked("", "q", session_id="t", session_timeout=bad))


def test_the_hello_is_one_block_with_revision_zero():
    catalog = Catalog("26.9", "UTC", "default", frozenset(), frozenset(), frozenset(), (), frozenset(), frozenset(), {})
    block = hello.answer(catalog, 54460)
    assert block == (
        b"\x01\x00\x02\xff\xff\xff\xff\x00\x04\x01"
        b"\x0ddisplayName()\x06String\x00\x09headwatch"
        b"\x09version()\x06String\x00\x0426.9"
        b"\x0arevision()\x06UInt32\x00\x00\x00\x00\x00"
        b"\x0atimezone()\x06String\x00\x03UTC"
    )
    assert hello.answer(catalog, 54405).count(b"String\x00") == 0, "no byte of serialization before 54454"
