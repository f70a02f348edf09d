"""kill -9 at any instant: what the exporter said is spooled is in the store once, in each table and in the view behind one.

What the process was working on when it died may be there or not; never a part of it.  Each prints its tally (``-rP``).
"""

# ruff: noqa: T201 - a tally is printed

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..clickhouse_http import ClickHouseHttp
from ..programs import free_port
from .spool_kills import ROOT, Tally, run

pytestmark = pytest.mark.store

FEW = 4
KILLS = [pytest.param(FEW, id="few"), pytest.param(200, id="many", marks=[pytest.mark.long, pytest.mark.timeout(3600)])]
DISK_MIB = 48


@pytest.mark.parametrize("kills", KILLS)
def test_an_embedded_store_has_each_delivery_once(tmp_path: Path, kills: int):
    found = run(f"chdb://{tmp_path}/store", tmp_path / "spool", kills, seed=1)
    print(found)
    found.verify(kills)
    assert found.spooled > (kills if kills > FEW else 0)  # a busy machine begins few in a few rounds


@pytest.mark.parametrize("kills", KILLS)
def test_a_store_by_url_that_is_away_now_and_then_has_each_delivery_once(tmp_path: Path, kills: int):
    """It refuses connections for whole rounds, and cuts some after the insert, before the answer."""
    server = ClickHouseHttp(tmp_path / "server", free_port())
    chance = random.Random(2)

    def cut() -> None:
        if chance.random() < 0.05:
            raise ConnectionResetError

    rounds = iter(range(1, kills + 1))

    def between(instants: random.Random) -> None:
        server.after_insert = cut
        server.refuse()
        if next(rounds) == kills or instants.random() < 0.5:
            time.sleep(instants.random() * 0.5)
            server.listen()

    server.listen()
    try:
        found = run(server.url, tmp_path / "spool", kills, 2, between)
    finally:
        server.close()
    print(found)
    found.verify(kills)
    assert found.spooled > (kills if kills > FEW else 0)  # a busy machine begins few in a few rounds


@pytest.mark.parametrize(
    ("kills", "seconds"), [pytest.param(4, 5.0, id="seconds"), pytest.param(200, 600.0, id="ten minutes", marks=KILLS[1].marks)]
)
def test_a_store_that_refuses_connections_for_long_has_each_delivery_once(tmp_path: Path, kills: int, seconds: float):
    """Nobody answers while writers are killed; then the server is back, and the next writers drain what all of them left."""
    server = ClickHouseHttp(tmp_path / "server", free_port())
    rounds = iter(range(1, kills + 1))
    there: list[list[tuple[str, ...]]] = []
    until = 0.0

    def between(_: random.Random) -> None:
        nonlocal until
        number = next(rounds)
        if number == 1:
            server.refuse()
            there.append(server.query("SELECT count() FROM headwatch_requests"))
            until = time.monotonic() + seconds
        if number == kills:
            time.sleep(max(0.0, until - time.monotonic()))
            there.append(server.query("SELECT count() FROM headwatch_requests"))
            server.listen()

    server.listen()
    try:
        found = run(server.url, tmp_path / "spool", kills, 4, between, pause_seconds=0.5)  # ten minutes of them are drained
    finally:
        server.close()
    print(found)
    assert there[0] == there[1], "it was away"
    found.verify(kills)
    assert found.spooled > (kills if kills > FEW else 0)  # a busy machine begins few in a few rounds


@pytest.mark.parametrize("kills", KILLS)
@pytest.mark.parametrize("what", ["spool", "all"])
def test_a_full_disk_loses_what_was_not_spooled_and_nothing_else(tmp_path: Path, kills: int, what: str):
    """A real small disk for the spool, or for spool and store."""
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets no user make a mount namespace")
    mib = DISK_MIB if what == "spool" else 8 * DISK_MIB
    program = [sys.executable, "-m", "tests.integration.spool_kills", str(tmp_path / "disk"), str(kills), "3", str(mib), what]
    done = subprocess.run([*command, *program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout)
    filled = answer.pop("filled")
    found = Tally(**answer)
    print(found, "filled:", filled)
    found.verify(kills)
    assert filled
    assert found.refused
