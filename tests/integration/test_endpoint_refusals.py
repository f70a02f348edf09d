"""What the ClickHouse endpoint refuses: writing, reading files, reaching out, and every way round that we could think of."""

from __future__ import annotations

import re
import socket
import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from .endpoints import Served, fill_two_services, serving_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.store

SECRET = "planted-6b1f0c-never-to-be-read"


class Trap:
    """A listener that nobody may reach, and a file that nobody may read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "secret.tsv"
        self.file.write_text(SECRET + "\n")
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Trap]]:
    folder = tmp_path_factory.mktemp("endpoint")
    (folder / "trap").mkdir()
    trap = Trap(folder / "trap")
    with serving_store(folder) as served:
        fill_two_services(served)
        yield served, trap
    trap.close()


WRITES = [
    "INSERT INTO seen VALUES ('a', 'r', 1, 'x')",
    "INSERT INTO seen SELECT 'a', 'r', 1, 'x'",
    'INSERT INTO seen FORMAT JSONEachRow {{"service": "a"}}',
    "INSERT INTO FUNCTION file('{folder}/out.tsv', 'TSV', 'a String') SELECT 'x'",
    "INSERT INTO FUNCTION url('http://127.0.0.1:{port}/', 'TSV', 'a String') SELECT 'x'",
    "INSERT INTO FUNCTION remote('127.0.0.1:{port}', default.seen) SELECT 'a', 'r', 1, 'x'",
    "CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a",
    "CREATE TABLE t ENGINE = Memory AS SELECT 1",
    "CREATE TEMPORARY TABLE t (a UInt8)",
    "CREATE TABLE t (a String) ENGINE = File(TSV, '{folder}/secret.tsv')",
    "CREATE OR REPLACE VIEW v AS SELECT 1",
    "CREATE MATERIALIZED VIEW v ENGINE = Memory AS SELECT 1",
    "CREATE DATABASE d",
    "CREATE DICTIONARY d (a UInt64) PRIMARY KEY a SOURCE(FILE(path '{folder}/secret.tsv' format 'TSV')) LAYOUT(FLAT())",
    "CREATE FUNCTION f AS (x) -> x + 1",
    "CREATE USER u IDENTIFIED BY 'x'",
    "CREATE ROW POLICY p ON seen USING 1 TO ALL",
    "CREATE NAMED COLLECTION c AS key = 'x'",
    "ATTACH TABLE t FROM '{folder}' (a UInt8) ENGINE = MergeTree ORDER BY a",
    "ALTER TABLE seen ADD COLUMN a UInt8",
    "ALTER TABLE seen DELETE WHERE 1",
    "ALTER TABLE seen UPDATE secret = '' WHERE 1",
    "ALTER TABLE seen DROP PARTITION tuple()",
    "DELETE FROM seen WHERE 1",
    "UPDATE seen SET secret = '' WHERE 1",
    "TRUNCATE TABLE seen",
    "DROP TABLE seen",
    "DROP DATABASE default",
    "DETACH TABLE seen",
    "RENAME TABLE seen TO gone",
    "EXCHANGE TABLES seen AND headwatch_requests",
    "OPTIMIZE TABLE seen FINAL",
    "UNDROP TABLE seen",
    "BACKUP TABLE seen TO File('{folder}/backup')",
    "RESTORE TABLE seen FROM File('{folder}/backup')",
    "SYSTEM FLUSH LOGS",
    "SYSTEM STOP MERGES",
    "SYSTEM SHUTDOWN",
    "KILL QUERY WHERE 1",
    "KILL MUTATION WHERE 1",
    "GRANT ALL ON *.* TO default",
    "EXECUTE AS root SELECT 1",
    "BEGIN TRANSACTION",
    "MOVE ROLE a TO b",
    "SELECT 1 INTO OUTFILE '{folder}/out.tsv'",
    "SELECT 1 INTO OUTFILE '{folder}/out.tsv' TRUNCATE FORMAT TSV",
    "SELECT 1 INTO OUTFILE '{folder}/secret.tsv' APPEND AND STDOUT",
    "SELECT 1 /* */ INTO /**/ OUTFILE $${folder}/out.tsv$$",
    "EXPLAIN SELECT 1 INTO OUTFILE '{folder}/out.tsv'",
    "SHOW TABLES INTO OUTFILE '{folder}/out.tsv'",
    "DESCRIBE TABLE seen INTO OUTFILE '{folder}/out.tsv'",
    "DESCRIBE TABLE (SELECT 1) INTO OUTFILE '{folder}/out.tsv' FORMAT TSV",
    "EXISTS TABLE seen INTO OUTFILE '{folder}/out.tsv'",
    "SHOW CREATE TABLE seen INTO OUTFILE '{folder}/out.tsv' FORMAT TSV",
    "SELECT 1 PARALLEL WITH INSERT INTO seen SELECT 'a', 'r', 1, 'x'",
    "EXPLAIN PIPELINE INSERT INTO seen SELECT 'a', 'r', 1, 'x'",
    "SELECT 1; DROP TABLE seen",
    "SELECT 1;\n-- \nINSERT INTO seen VALUES ('a', 'r', 1, 'x')",
    "SELECT ';' ; TRUNCATE TABLE seen",
    "WITH x AS (SELECT 1) INSERT INTO seen SELECT 'a', 'r', 1, 'x'",
]
READS = [
    "SELECT file('{folder}/secret.tsv')",
    "SELECT FILE('{folder}/secret.tsv')",
    "SELECT `file`('{folder}/secret.tsv')",
    "SELECT \"file\"('{folder}/secret.tsv')",
    "SELECT fi/**/le('{folder}/secret.tsv')",
    "SELECT file(concat('{folder}', '/secret.tsv'))",
    "WITH file('{folder}/secret.tsv') AS f SELECT f",
    "SELECT arrayMap(x -> file(x), ['{folder}/secret.tsv'])",
    "SELECT * APPLY(file) FROM (SELECT '{folder}/secret.tsv')",
    "SELECT * APPLY(x -> file(x)) FROM (SELECT '{folder}/secret.tsv')",
    "SELECT * REPLACE (file(a) AS a) FROM (SELECT '{folder}/secret.tsv' AS a)",
    "SELECT 1 ORDER BY file('{folder}/secret.tsv')",
    "SELECT 1 LIMIT length(file('{folder}/secret.tsv'))",
    "SELECT count() FROM seen GROUP BY file('{folder}/secret.tsv')",
    "SELECT sum(number) OVER (PARTITION BY file('{folder}/secret.tsv')) FROM seen",
    "SELECT * FROM seen WHERE secret = file('{folder}/secret.tsv')",
    "SELECT * FROM seen ARRAY JOIN [file('{folder}/secret.tsv')] AS x",
    "SELECT * FROM seen QUALIFY file('{folder}/secret.tsv') = ''",
    "SELECT number FROM seen ORDER BY number WITH FILL FROM length(file('{folder}/secret.tsv'))",
    "SELECT number FROM seen ORDER BY number WITH FILL INTERPOLATE (number AS length(file('{folder}/secret.tsv')))",
    "SELECT * FROM file('{folder}/secret.tsv', 'TSV', 'a String')",
    "SELECT * FROM `file`('{folder}/secret.tsv')",
    "SELECT * FROM FILE('{folder}/secret.tsv')",
    "SELECT * FROM '{folder}/secret.tsv'",
    'SELECT * FROM "{folder}/secret.tsv"',
    "DESCRIBE TABLE file('{folder}/secret.tsv')",
    "DESCRIBE (SELECT * FROM file('{folder}/secret.tsv'))",
    "DESCRIBE TABLE (SELECT 1 FROM file('{folder}/secret.tsv', 'TSV', 'a String')) FORMAT JSON",
    "EXPLAIN SELECT * FROM file('{folder}/secret.tsv')",
    "EXPLAIN QUERY TREE SELECT * FROM file('{folder}/secret.tsv')",
    "SELECT * FROM (EXPLAIN SELECT * FROM file('{folder}/secret.tsv'))",
    "SELECT 1 IN file('{folder}/secret.tsv')",
    "SELECT 1 WHERE 'x' IN (SELECT * FROM file('{folder}/secret.tsv'))",
    "SELECT (SELECT any(c1) FROM file('{folder}/secret.tsv'))",
    "SELECT 1 UNION ALL SELECT 1 FROM file('{folder}/secret.tsv')",
    "SELECT 1 INTERSECT SELECT 1 FROM file('{folder}/secret.tsv')",
    "WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a FROM r, file('{folder}/secret.tsv')) SELECT * FROM r",
    "SELECT * FROM view(SELECT * FROM file('{folder}/secret.tsv'))",
    "SELECT a FROM values('b UInt8, a String ALIAS file(''{folder}/secret.tsv'')', (1))",
    "SELECT a FROM VALUES('b UInt8, a String DEFAULT file(''{folder}/secret.tsv'')', (1))",
    "SELECT a FROM SQLStandardValues('b UInt8, a String ALIAS file(''{folder}/secret.tsv'')', (1))",
    "SELECT a FROM generateRandom('a String ALIAS file(''{folder}/secret.tsv'')')",
    "SELECT a FROM format(JSONEachRow, 'b UInt8, a String ALIAS file(''{folder}/secret.tsv'')', '{{}}')",
    "SELECT a FROM null('a String ALIAS file(''{folder}/secret.tsv'')')",
    "SELECT a FROM input('a String ALIAS file(''{folder}/secret.tsv'')')",
    "SELECT formatRow('Template', 1)",
    "SELECT formatRow('Protobuf', 1 AS a)",
    "SHOW COLUMNS FROM {{t:Identifier}}",
    "USE {{t:Identifier}}",
    "SELECT * FROM seen UUID '8f4943be-e3d0-447b-9516-1b7f6e6d4d7a'",
    "SELECT * FROM viewIfPermitted(SELECT 1 ELSE file('{folder}/secret.tsv'))",
    "SELECT * FROM loop(file('{folder}/secret.tsv'))",
    "SELECT * FROM eval('SELECT * FROM file(''{folder}/secret.tsv'')')",
    "SELECT * FROM filesystem('{folder}')",
    "SELECT * FROM fileCluster('default', '{folder}/secret.tsv')",
    "SELECT * FROM executable('cat {folder}/secret.tsv', 'TSV', 'a String')",
    "SELECT * FROM python('open(\"{folder}/secret.tsv\").read()')",
    "SELECT * FROM Python(trap)",
    "SELECT * FROM sqlite('{folder}/x.db', 't')",
    "SELECT * FROM iceberg('{folder}')",
    "SELECT * FROM icebergLocal('{folder}')",
    "SELECT * FROM deltaLakeLocal('{folder}')",
    "SELECT * FROM url('http://127.0.0.1:{port}/', 'TSV', 'a String')",
    "SELECT * FROM url('file://{folder}/secret.tsv', 'TSV', 'a String')",
    "SELECT * FROM s3('http://127.0.0.1:{port}/b/k', 'TSV', 'a String')",
    "SELECT * FROM gcs('http://127.0.0.1:{port}/b/k', 'TSV', 'a String')",
    "SELECT * FROM azureBlobStorage('http://127.0.0.1:{port}', 'c', 'b', 'a', 'k')",
    "SELECT * FROM hdfs('hdfs://127.0.0.1:{port}/x', 'TSV', 'a String')",
    "SELECT * FROM remote('127.0.0.1:{port}', system.one)",
    "SELECT * FROM remoteSecure('127.0.0.1:{port}', default.seen)",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM mysql('127.0.0.1:{port}', 'd', 't', 'u', 'p')",
    "SELECT * FROM postgresql('127.0.0.1:{port}', 'd', 't', 'u', 'p')",
    "SELECT * FROM mongodb('127.0.0.1:{port}', 'd', 't', 'u', 'p')",
    "SELECT * FROM redis('127.0.0.1:{port}', 'k', 'k String')",
    "SELECT * FROM jdbc('x', 't')",
    "SELECT * FROM odbc('x', 't')",
    "SELECT hasColumnInTable('127.0.0.1:{port}', 'u', 'p', 'd', 't', 'c')",
    "SELECT dictGet('d', 'a', 1)",
    "SELECT dictHas('d', 1)",
    "SELECT * FROM dictionary('d')",
    "SELECT joinGet('j', 'a', 1)",
    "SELECT aiGenerate('x')",
    "SELECT evalMLMethod(1)",
    "SELECT getServerSetting('path')",
    "SELECT getMacro('x')",
    "SELECT showCertificate()",
    "SELECT addressToLine(1)",
    "SELECT sleep(3)",
    "SELECT logTrace('x')",
    "SELECT * FROM merge('system', '.*')",
    "SELECT * FROM merge('.*')",
    "SELECT * FROM mergeTreeIndex('default', 'seen')",
    "SELECT * FROM fuzzJSON('x')",
    "SELECT * FROM system.query_log",
    "SELECT * FROM system.processes",
    "SELECT * FROM system.users",
    "SELECT * FROM system.named_collections",
    "SELECT * FROM system.server_settings",
    "SELECT * FROM system.disks",
    "SELECT * FROM system.certificates",
    "SELECT * FROM system.stack_trace",
    "SELECT * FROM `system`.`processes`",
    "SELECT * FROM system . processes",
    "SELECT 1 IN system.users",
    "SELECT 'x' NOT IN (system.processes)",
    "SHOW PROCESSLIST",
    "SHOW GRANTS",
    "SHOW CREATE TABLE system.processes",
    "DESCRIBE TABLE system.processes",
    "EXISTS TABLE system.processes",
    "SHOW COLUMNS FROM processes FROM system",
    "SHOW FILESYSTEM CACHES",
    "SELECT * FROM `.inner.x`",
    "SELECT * FROM `.inner_id.00000000-0000-0000-0000-000000000000`",
    "SELECT 1 FORMAT Template",
    "SELECT 1 FORMAT Protobuf",
]
ESCAPES = [
    "SET readonly = 0",
    "SET allow_ddl = 1",
    "SET allow_ddl = DEFAULT",
    "SET max_execution_time = 0",
    "SET max_memory_usage = 99999999999",
    "SET param_x = 'y'",
    "SET ROLE admin",
    "USE system_other",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS readonly = 0, max_threads = 1",
    "SELECT 1 FORMAT TSV SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_memory_usage = 0",
    "SELECT 1 SETTINGS max_execution_time = -1",
    "SELECT 1 SETTINGS max_threads = 64",
    "SELECT 1 SETTINGS max_result_bytes = DEFAULT",
    "SELECT 1 SETTINGS output_format_schema = '{folder}/out.tsv'",
    "SELECT 1 SETTINGS format_schema = '{folder}/secret.tsv'",
    "SELECT 1 SETTINGS format_template_resultset = '{folder}/secret.tsv'",
    "SELECT 1 SETTINGS additional_table_filters = {{'seen': '1'}}",
    "SELECT 1 SETTINGS log_queries_probability = 1",
    "SELECT * FROM (SELECT 1 SETTINGS readonly = 0)",
    "SELECT (SELECT 1 SETTINGS max_execution_time = 0)",
    "SELECT 1 UNION ALL SELECT 1 SETTINGS max_execution_time = 0",
    "WITH x AS (SELECT 1 SETTINGS max_memory_usage = 0) SELECT * FROM x",
    "SELECT 1 WHERE 1 IN (SELECT 1 SETTINGS max_threads = 64)",
    "EXPLAIN SELECT * FROM (SELECT 1 SETTINGS readonly = 0)",
    "DESCRIBE TABLE (SELECT 1 SETTINGS readonly = 0)",
    "DESCRIBE TABLE seen SETTINGS readonly = 0",
]
URL_SETTINGS = [
    "readonly=0", "max_execution_time=0", "max_execution_time=-5", "max_memory_usage=0", "max_threads=64", "max_threads=-1",
    "max_threads=1.5", "max_result_rows=x", "allow_ddl=1", "allow_introspection_functions=1", "additional_table_filters={}",
    "output_format_schema=/tmp/x", "format_schema=/etc/passwd", "format_template_resultset=/etc/passwd", "profile=default",
    "role=admin", "user_files_path=/", "enable_analyzer=0", "allow_experimental_analyzer=0", "max_ast_depth=1000000",
    "max_bytes_before_external_sort=1", "log_comment%27=1", "max_threads%3D1%2Creadonly=0", "database=system", "database=other",
]  # fmt: skip


def entries(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def state(served: Served) -> list[object]:
    """Return what would change if something were written: databases, tables, functions, rows."""
    return list(served.store._connection.query(
        "SELECT (SELECT groupArray((database, name)) FROM system.tables WHERE database != 'system') AS tables, "
        "(SELECT groupArray(name) FROM system.databases) AS databases, "
        "(SELECT count() FROM system.functions WHERE origin != 'System') AS functions, "
        "(SELECT (count(), sum(cityHash64(*))) FROM seen) AS rows"
    ))  # fmt: skip


def refused(answer: httpx.Response) -> None:
    assert answer.status_code >= 400, answer.text
    assert SECRET not in answer.text
    code = answer.headers["x-clickhouse-exception-code"]
    assert re.match(rf"Code: {code}\. DB::Exception: .*\([A-Z_]+\) \(version [0-9.]+\)\n$", answer.text, re.DOTALL), (
        answer.text
    )


@pytest.mark.parametrize("query", [*WRITES, *READS, *ESCAPES])
def test_a_query_that_does_more_than_read_the_store_is_refused_and_does_nothing(
    trapped: tuple[Served, Trap], query: str
):
    served, trap = trapped
    text = query.format(folder=trap.folder, port=trap.port)
    before = (entries(trap.folder), state(served), trap.connections)
    refused(served.ask(text))
    assert (entries(trap.folder), state(served), trap.connections) == before


@pytest.mark.parametrize("setting", URL_SETTINGS)
def test_a_setting_that_would_loosen_anything_is_refused(trapped: tuple[Served, Trap], setting: str):
    served, _ = trapped
    refused(httpx.post(f"{served.url}?{setting}", content=b"SELECT 1"))


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("SELECT * FROM {t:Identifier}", {"param_t": "processes", "database": "system"}),
        ("SELECT * FROM {d:Identifier}.{t:Identifier}", {"param_d": "system", "param_t": "processes"}),
        ("SELECT * FROM {t:Identifier}", {"param_t": "`system`.`processes`"}),
        ("SELECT * FROM {t:Identifier}", {"param_t": "x` ; DROP TABLE seen --"}),
        ("SELECT * FROM {t:Identifier}", {"param_t": "x\\` FROM file('/etc/passwd')"}),
        ("SELECT * FROM {t:Identifier}", {"param_t": "a\nb"}),
        ("SELECT * FROM {t:Identifier}", {"param_t": ""}),
        ("SELECT * FROM {t:Identifier}", {}),
        ("SELECT 1 IN {d:Identifier}.{t:Identifier}", {"param_d": "system", "param_t": "users"}),
        ("SELECT {x:String", {"param_x": "} FROM file('/etc/passwd')"}),
        ("SELECT {x:UInt8}", {"param_x": "1) FROM file('/etc/passwd') --"}),
    ],
)
def test_parameters_are_values_and_names_and_nothing_more(
    trapped: tuple[Served, Trap], query: str, parameters: dict[str, str]
):
    served, _ = trapped
    before = state(served)
    refused(served.ask(query, **parameters))
    assert state(served) == before


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_only_get_head_and_post_are_answered(trapped: tuple[Served, Trap], method: str):
    served, _ = trapped
    assert httpx.request(method, f"{served.url}?query=SELECT+1").status_code == 405


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)])
def test_a_page_of_another_site_cannot_ask(trapped: tuple[Served, Trap], site: str, status: int):
    served, _ = trapped
    headers = {"Sec-Fetch-Site": site, "Origin": "https://evil.example"}
    answer = httpx.get(f"{served.url}?query=SELECT+1", headers=headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_a_refusal_is_noted_without_what_it_carried(trapped: tuple[Served, Trap]):
    served, _ = trapped
    served.ask("INSERT INTO seen VALUES ('someone@example.com')", query_id="refused-1")
    read = served.audit.wait("refused-1")
    assert (read.outcome, read.query, read.user) == ("READONLY", "INSERT INTO seen FORMAT Values", "default")
    served.ask("what? someone@example.com", query_id="refused-2")
    assert served.audit.wait("refused-2").query == "WHAT"
    assert served.endpoint.counters["READONLY"] >= 1


def test_readonly_alone_would_let_the_file_out(trapped: tuple[Served, Trap]):
    """The attempts above are worth something: the engine's own readonly mode stops neither this read nor that write."""
    served, trap = trapped
    with served.endpoint._reads._engine.handle() as handle:
        handle.restrict({"max_threads": "1"})
        assert SECRET in handle.ask(f"SELECT file('{trap.file}')").decode()
        handle.ask(f"SELECT 1 INTO OUTFILE '{trap.folder}/written.tsv'")
    assert (trap.folder / "written.tsv").exists()
    (trap.folder / "written.tsv").unlink()


def test_there_are_as_many_attempts_as_promised():
    assert len({*WRITES, *READS, *ESCAPES, *URL_SETTINGS}) >= 60
