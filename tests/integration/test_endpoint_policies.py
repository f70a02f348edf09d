"""Row policies of the ClickHouse endpoint: who may see one service or route sees nothing of the others, however he asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from headwatch.config import ClickHouseConfig, ClickHouseUser

from .endpoint_waits import waited
from .endpoints import Served, fill_two_services, serving_store

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.store

PASSWORDS = {"all": "p" * 32, "only-a": "q" * 32, "only-r": "s" * 32, "a-and-r": "t" * 32}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("policies")
    users = []
    for name, password in PASSWORDS.items():
        secret = folder / name
        secret.write_text(password)
        secret.chmod(0o600)
        services = ("a", "it's \\ none") if name in {"only-a", "a-and-r"} else ()
        routes = ("r",) if name in {"only-r", "a-and-r"} else ()
        users.append(ClickHouseUser(name=name, secret_file=str(secret), services=services, routes=routes))
    with serving_store(folder, ClickHouseConfig(users=tuple(users))) as found:
        fill_two_services(found)
        found.write("CREATE TABLE unfiltered (number UInt64) ENGINE = MergeTree ORDER BY number")
        found.write("INSERT INTO unfiltered SELECT 1")
        found.write("CREATE VIEW through AS SELECT * FROM seen")
        found.write("CREATE MATERIALIZED VIEW copied ENGINE = MergeTree ORDER BY number AS SELECT * FROM seen")
        found.write(
            "INSERT INTO otel_metrics_gauge (TimeUnix, ServiceName, MetricName, Attributes, Value) "
            "SELECT now64(9), if(number % 2, 'b', 'a'), 'm', map('headwatch.route', if(number % 3, 'q', 'r')), number "
            "FROM numbers(60)"
        )
        yield found


def asked(served: Served, name: str, query: str, **parameters: Any) -> httpx.Response:
    return served.ask(query, user=(name, PASSWORDS[name]), **parameters)


@pytest.mark.parametrize(("name", "rows"), [("all", 1000), ("only-a", 500), ("only-r", 334), ("a-and-r", 167)])
def test_each_user_sees_his_rows(served: Served, name: str, rows: int):
    assert asked(served, name, "SELECT count() FROM seen").text == f"{rows}\n"
    metrics = {"all": 60, "only-a": 30, "only-r": 20, "a-and-r": 10}
    assert (
        asked(served, name, "SELECT count() FROM otel_metrics_gauge WHERE MetricName = 'm'").text
        == f"{metrics[name]}\n"
    )


EVASIONS = [
    "SELECT * FROM seen",
    "SELECT * FROM default.seen",
    "SELECT * FROM `default`.`seen` AS x",
    "SELECT service, count() FROM seen GROUP BY service WITH TOTALS",
    "SELECT max(secret), min(secret), any(secret) FROM seen",
    "SELECT groupUniqArray(secret) FROM seen",
    "SELECT uniqExact(service), groupUniqArray(service) FROM seen",
    "SELECT topK(5)(secret) FROM seen",
    "SELECT * FROM (SELECT * FROM seen)",
    "WITH seen AS (SELECT * FROM default.seen) SELECT * FROM seen",
    "WITH x AS (SELECT * FROM seen), y AS (SELECT * FROM x) SELECT * FROM y",
    "WITH RECURSIVE r AS (SELECT secret, 0 AS n FROM seen UNION ALL SELECT r.secret, n + 1 FROM r WHERE n < 1) SELECT * FROM r",
    "SELECT * FROM seen AS a, seen AS b WHERE a.number = b.number + 1",
    "SELECT * FROM seen AS a LEFT JOIN seen AS b ON a.number + 1 = b.number",
    "SELECT * FROM seen AS a RIGHT JOIN seen AS b ON a.number + 1 = b.number",
    "SELECT * FROM seen AS a FULL JOIN seen AS b ON a.number + 1 = b.number SETTINGS join_use_nulls = 1",
    "SELECT * FROM numbers(1000) AS n ANY LEFT JOIN seen AS b ON n.number = b.number",
    "SELECT * FROM numbers(1000) AS n ASOF JOIN seen AS b ON n.number % 1 = b.number % 1 AND n.number >= b.number",
    "SELECT * FROM numbers(1000) AS n PASTE JOIN (SELECT * FROM seen) AS b",
    "SELECT * FROM seen GLOBAL JOIN seen AS b USING number",
    "SELECT * FROM seen UNION ALL SELECT * FROM default.seen",
    "SELECT * FROM seen EXCEPT SELECT * FROM seen WHERE service = 'a'",
    "SELECT (SELECT groupArray(secret) FROM seen)",
    "SELECT arrayJoin((SELECT groupArray(secret) FROM seen))",
    "SELECT number FROM numbers(1000) WHERE number IN (SELECT number FROM seen) AND number % 2",
    "SELECT number FROM numbers(1000) WHERE (number % 2 ? 'b' : 'a', 'q', number, 'of b') IN seen",
    "SELECT number FROM numbers(1000) WHERE (number % 2 ? 'b' : 'a', 'q', number, 'of b') IN default.seen",
    "SELECT number FROM numbers(1000) WHERE number GLOBAL IN (SELECT number FROM default.seen) AND number % 2",
    "SELECT exists(SELECT 1 FROM seen WHERE service = 'b') AS b WHERE b",
    "SELECT secret FROM seen WHERE 1 OR service = 'b'",
    "SELECT secret FROM seen WHERE service = 'b' OR 1 = 1",
    "SELECT secret, row_number() OVER (ORDER BY number) FROM seen",
    "SELECT lagInFrame(secret) OVER (ORDER BY number) FROM seen",
    "SELECT secret FROM seen ORDER BY service DESC LIMIT 1",
    "SELECT secret FROM seen ORDER BY number LIMIT 1 BY service",
    "SELECT DISTINCT service, secret FROM seen",
    "SELECT secret FROM seen HAVING 1",
    "SELECT count() FROM seen WHERE number % 2 HAVING count() > 0",
    "SELECT sum(number % 2) AS odd FROM seen HAVING odd > 0",
    "SELECT countIf(service = 'b') AS n FROM seen HAVING n > 0",
    "SELECT * FROM view(SELECT * FROM seen)",
    "SELECT COLUMNS('.*') FROM seen",
    "SELECT * EXCEPT number FROM seen",
    "SELECT secret FROM {t:Identifier}",
    "SELECT 1 AS additional_table_filters, secret FROM seen",
    "SELECT secret FROM seen AS `default.unfiltered`",
    "SELECT ServiceName, Value FROM otel_metrics_gauge WHERE Value % 2",
    "SELECT Attributes FROM otel_metrics_gauge WHERE ServiceName = 'b'",
]
"""Nothing that these answer may be of service b: neither its name, nor its text, nor an odd number."""


@pytest.mark.parametrize("query", EVASIONS)
def test_no_way_of_asking_shows_a_hidden_row(served: Served, query: str):
    answer = asked(served, "only-a", f"{query} FORMAT TSV" if "SETTINGS" not in query else query, param_t="seen")
    assert answer.status_code == 200, answer.text
    assert "of b" not in answer.text
    for line in answer.text.splitlines():
        assert "b" not in line.split("\t")
        if "numbers(" not in query and "row_number" not in query and "odd" not in query and "n + 1" not in query:
            numbers = [int(field) for field in line.split("\t") if field.isdigit()]
            assert not any(number % 2 for number in numbers if number > 1), line


def test_the_same_questions_show_it_to_who_may_see_everything(served: Served):
    shown = [query for query in EVASIONS if "of b" in asked(served, "all", query, param_t="seen").text]
    assert len(shown) > 25, "the questions can find what they look for"


REFUSED = [
    "SELECT * FROM unfiltered",
    "SELECT 1 IN unfiltered",
    "SELECT * FROM through",
    "SELECT * FROM copied",
    "WITH unfiltered AS (SELECT 1) SELECT * FROM unfiltered",
    "DESCRIBE TABLE unfiltered",
    "SHOW CREATE TABLE copied",
    "SELECT * FROM seen PREWHERE throwIf(service = 'b')",
    "SELECT * FROM seen PREWHERE number > 1",
    "SELECT throwIf(service = 'b') FROM seen",
    "EXPLAIN ESTIMATE SELECT * FROM seen",
    "EXPLAIN indexes = 1 SELECT * FROM seen WHERE service = 'b'",
    "SELECT * FROM (EXPLAIN SELECT * FROM seen)",
    "SELECT * FROM system.parts",
    "SELECT * FROM system.parts_columns",
    "SELECT * FROM seen SETTINGS additional_table_filters = {}",
    "SELECT * FROM (SELECT * FROM seen SETTINGS additional_table_filters = {})",
    "SELECT * FROM merge('default', 'seen')",
    "SELECT * FROM seen SETTINGS optimize_move_to_prewhere = 1",
    "SELECT * FROM seen SETTINGS enable_analyzer = 0",
    "SET additional_table_filters = {}",
]


@pytest.mark.parametrize("query", REFUSED)
def test_what_could_go_round_the_policy_is_refused(served: Served, query: str):
    answer = asked(served, "only-a", query)
    assert answer.status_code >= 400, answer.text
    assert answer.headers["x-clickhouse-exception-code"] in {"164", "497"}


@pytest.mark.parametrize(
    "condition",
    [
        "intDiv(1, if(service = 'b', 0, 1)) = 1",
        "toUInt8(if(service = 'b', 'x', '1')) = 1",
        "toDate(if(service = 'b', 'never', '2024-01-01')) > '2000-01-01'",
        "arrayElement([1], 1) = intDiv(1, number % 2 = 0)",
        "parseDateTime(if(service = 'b', 'x', '2024'), '%Y') > 0",
        "number IN (SELECT intDiv(number, if(service = 'b', 0, 1)) FROM seen)",
    ],
)
@pytest.mark.parametrize("place", ["WHERE {}", "WHERE 1 AND {}", "GROUP BY 1 HAVING max({})", "ORDER BY {} LIMIT 1"])
def test_an_error_on_a_hidden_row_tells_nobody_of_it(served: Served, condition: str, place: str):
    """A condition that fails on rows of service b, and on no other, must not fail for who may not see them."""
    where = place.format(condition)
    query = f"SELECT {'1' if 'GROUP' in place else 'number'} FROM seen {where}"
    assert asked(served, "only-a", query).status_code == 200, asked(served, "only-a", query).text


def test_the_conditions_do_fail_where_the_rows_are_seen(served: Served):
    assert (
        asked(served, "all", "SELECT number FROM seen WHERE intDiv(1, if(service = 'b', 0, 1)) = 1").status_code == 500
    )


WAYS: list[dict[str, Any]] = [
    {"auth": ("only-a", PASSWORDS["only-a"])},
    {"headers": {"X-ClickHouse-User": "only-a", "X-ClickHouse-Key": PASSWORDS["only-a"]}},
    {"headers": {"Authorization": f"Bearer {PASSWORDS['only-a']}"}},
    {"params": {"user": "only-a", "password": PASSWORDS["only-a"]}},
]


@pytest.mark.parametrize("way", WAYS, ids=["basic", "headers", "bearer", "url"])
def test_every_way_to_say_who_asks(served: Served, way: dict[str, Any]):
    assert httpx.post(served.url, content=b"SELECT count() FROM seen", **way).text == "500\n"


@pytest.mark.parametrize(
    ("way", "status", "code"),
    [
        ({}, 401, "194"),
        ({"auth": ("only-a", PASSWORDS["all"])}, 403, "516"),
        ({"auth": ("all", "")}, 403, "516"),
        ({"auth": ("nobody", PASSWORDS["all"])}, 403, "516"),
        ({"auth": ("ALL", PASSWORDS["all"])}, 403, "516"),
        ({"headers": {"Authorization": f"Bearer {PASSWORDS['all'][:-1]}"}}, 403, "516"),
        ({"headers": {"Authorization": "Basic !!!"}}, 403, "516"),
        ({"headers": {"Authorization": "Negotiate x"}}, 403, "516"),
        ({"headers": {"X-ClickHouse-User": "all"}}, 403, "516"),
        (
            {"headers": {"X-ClickHouse-User": "all", "X-ClickHouse-Key": "x"}, "auth": ("all", PASSWORDS["all"])},
            403,
            "516",
        ),
        ({"params": {"user": "all", "password": PASSWORDS["only-a"]}}, 403, "516"),
    ],
)
def test_who_does_not_say_it_rightly_reads_nothing(served: Served, way: dict[str, Any], status: int, code: str):
    answer = httpx.post(served.url, content=b"SELECT count() FROM seen", **way)
    assert (answer.status_code, answer.headers["x-clickhouse-exception-code"]) == (status, code)
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_the_audit_says_who_read(served: Served):
    asked(served, "only-a", "SELECT secret FROM seen WHERE number = 42", query_id="who")
    read = served.audit.wait("who")
    assert (read.user, read.query, read.rows, read.outcome) == (
        "only-a", "SELECT secret FROM seen WHERE number = ?", 1, "ok",
    )  # fmt: skip


def test_the_audit_says_who_was_refused_and_never_a_secret(served: Served):
    before = len(served.audit.reads)
    wrong, mistaken = "zebra-wrong-password", "zebra-password-in-the-wrong-field"
    assert served.ask("SELECT 1", user=("only-a", wrong)).status_code == 403
    assert served.ask("SELECT 1", user=(mistaken, "")).status_code == 403
    assert httpx.post(served.url, content=b"SELECT 1", headers={"Authorization": f"Bearer {wrong}"}).status_code == 403
    asked(served, "only-a", "INSERT INTO seen SELECT * FROM seen", query_id="write")
    assert httpx.put(served.url, content=b"SELECT 1").status_code == 405
    assert waited(lambda: len(served.audit.reads) >= before + 5)
    noted = served.audit.reads[before:]
    assert sorted((read.user, read.tried, read.outcome, read.peer) for read in noted) == [
        ("", "", "AUTHENTICATION_FAILED", "127.0.0.1"), ("", "", "AUTHENTICATION_FAILED", "127.0.0.1"),
        ("", "", "METHOD_NOT_ALLOWED", "127.0.0.1"), ("", "only-a", "AUTHENTICATION_FAILED", "127.0.0.1"),
        ("only-a", "", served.audit.wait("write").outcome, "127.0.0.1"),
    ]  # fmt: skip
    assert served.audit.wait("write").outcome != "ok"
    assert "zebra" not in repr(noted)


def test_sessions_are_their_users_own(served: Served):
    asked(served, "all", "SET max_threads = 1", session_id="shared")
    assert asked(
        served, "all", "SELECT getSetting('max_threads')", session_id="shared", session_check=1
    ).status_code in {200, 403}
    answer = asked(served, "only-a", "SELECT 1", session_id="shared", session_check=1)
    assert (answer.status_code, answer.headers["x-clickhouse-exception-code"]) == (404, "372")
