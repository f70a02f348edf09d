"""The ClickHouse endpoint under clients that take their time: health answers, and the store is written all the while."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from headwatch.config import ClickHouseConfig

from .endpoints import Served, serving_store

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.store, pytest.mark.alone]

CLIENTS = 64
SECONDS = 6.0
BIG = "SELECT number, sipHash64(number), repeat('x', 100) FROM numbers(1000000000)"
HEAVY = "SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 7"


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_store(tmp_path_factory.mktemp("load"), ClickHouseConfig(max_waiting=32, queue_seconds=3.0)) as found:
        found.write("CREATE TABLE written (number UInt64) ENGINE = MergeTree ORDER BY number")
        yield found


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def slow_reader(served: Served, stop: threading.Event) -> None:
    """Ask for more than fits anywhere, and read a kilobyte ten times a second."""
    with contextlib.suppress(OSError), ask(served, BIG) as connection:
        while not stop.wait(0.1) and connection.recv(1024):
            pass


def slow_writer(served: Served, stop: threading.Event) -> None:
    """Send a byte of the query ten times a second."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(b"POST /clickhouse HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n")
        while not stop.wait(0.1):
            connection.sendall(b" ")


def heavy(served: Served, stop: threading.Event) -> None:
    """Keep a query running that reads for ever."""
    while not stop.is_set():
        with contextlib.suppress(OSError), ask(served, HEAVY, "?max_execution_time=2") as connection:
            while not stop.is_set() and connection.recv(4096):
                pass


def ask(served: Served, query: str, parameters: str = "") -> socket.socket:
    """Send *query*, and return the connection that it is answered on until the server closes it."""
    connection = socket.create_connection(("127.0.0.1", served.port), 10.0)
    head = f"POST /clickhouse{parameters} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Length: {len(query)}\r\n\r\n"
    connection.sendall((head + query).encode())
    return connection


@pytest.mark.parametrize("client", [slow_reader, slow_writer, heavy])
def test_slow_clients_hold_up_nobody(served: Served, client: object):
    stop = threading.Event()
    before = resident_mib()
    clients = [threading.Thread(target=client, args=(served, stop), daemon=True) for _ in range(CLIENTS)]  # type: ignore[arg-type]
    for thread in clients:
        thread.start()
    time.sleep(0.5)
    health: list[float] = []
    writes: list[float] = []
    ends = time.monotonic() + SECONDS
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}") as http:
        number = 0
        while time.monotonic() < ends:
            started = time.monotonic()
            assert http.get("/healthz").json() == {"status": "ok"}
            health.append(time.monotonic() - started)
            started = time.monotonic()
            served.store._connection.insert("written", {"number": list(range(number, number + 100))}, f"token-{number}")
            writes.append(time.monotonic() - started)
            number += 100
            time.sleep(0.05)
    grown = resident_mib() - before
    stop.set()
    for thread in clients:
        thread.join(10)
    print(f"health {max(health):.3f} s, write {max(writes):.3f} s at most, of {len(writes)}; {grown:.0f} MiB more")  # noqa: T201
    assert max(health) < 1.0, f"the slowest of {len(health)} took {max(health):.2f} s"
    assert max(writes) < 2.0, f"the slowest of {len(writes)} took {max(writes):.2f} s"
    assert grown < 200.0, f"{grown:.0f} MiB more"
    assert served.store._connection.query("SELECT count() AS n FROM written") == [{"n": number}]
    ends = time.monotonic() + 10.0
    answer = served.ask("SELECT 1")
    while answer.status_code != 200 and time.monotonic() < ends:
        time.sleep(0.2)
        answer = served.ask("SELECT 1")
    assert answer.text == "1\n", "what the clients held is free again"


def test_stopping_ends_what_runs_and_frees_the_store(tmp_path_factory: pytest.TempPathFactory):
    """A stop under load takes seconds at most, and the store can be opened again in the same process."""
    folder = tmp_path_factory.mktemp("stop")
    for _ in range(2):
        with serving_store(folder) as served:
            stop = threading.Event()
            clients = [
                threading.Thread(target=target, args=(served, stop), daemon=True)
                for target in (heavy, heavy, heavy, slow_reader, slow_reader, slow_reader, slow_reader)
            ]
            for thread in clients:
                thread.start()
            time.sleep(1.0)
            started = time.monotonic()
            served.endpoint.close()
            assert time.monotonic() - started < 5.0
            answer = served.ask("SELECT 1")
            assert answer.status_code >= 500
            assert answer.headers["x-clickhouse-exception-code"] in {"202", "394"}
            stop.set()
            for thread in clients:
                thread.join(10)


def test_an_answer_that_nobody_takes_is_given_up(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    from headwatch_exporters.clickhouse.http import reads

    monkeypatch.setattr(reads, "_SENDING_SECONDS", 0.5)
    config = ClickHouseConfig(max_running=1, max_execution_seconds=0.5)
    with serving_store(tmp_path_factory.mktemp("taken"), config) as served, ask(served, BIG, "?query_id=untaken"):
        assert served.audit.wait("untaken").outcome == "TIMEOUT_EXCEEDED"
        assert served.ask("SELECT 1").text == "1\n"


def test_memory_stays_where_it_is(tmp_path_factory: pytest.TempPathFactory):
    """Answers of 300 MB, one after the other: the first leaves something behind, the others nothing."""
    with serving_store(tmp_path_factory.mktemp("memory"), ClickHouseConfig(max_result_bytes=1 << 34)) as served:
        after = []
        for _ in range(6):
            size = 0
            with ask(served, "SELECT repeat('x', 300) FROM numbers(1000000)") as connection:
                while piece := connection.recv(1 << 20):
                    size += len(piece)
            assert size > 301_000_000
            after.append(resident_mib())
        assert after[-1] - after[0] < 64.0, after
