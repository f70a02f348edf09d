"""kill -9 of the whole sidecar under traffic: what it loses is what was open, and nothing is in the store twice.

Numbered requests go over the wire twenty times a second, each on a route of its own.  Of those that went out while no sidecar
was there only that they are not there twice is looked at: losses on the wire are counted there.
"""

# ruff: noqa: T201 - a tally is printed

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Self

import httpx
import pytest
import zmq

from headwatch.config import SpoolConfig, StoreConfig
from headwatch.wire import codec
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter

from ..programs import free_port, wait_for
from ..unit.frames import context, summary
from .spool_writer import COUNTS, TARGET, VIEW
from .test_cli_process import settings_of, sidecar

pytestmark = pytest.mark.store

LONG = [pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(3600)]
KILLS = [pytest.param(3, id="few"), pytest.param(60, id="many", marks=LONG)]
WINDOW_SECONDS = 1.0
OPEN_SECONDS = WINDOW_SECONDS + 3.5
"""A window, the grace in which late rows are waited for, a tick, and a machine that is busy."""
FEATURES = {"entropy": 0.5, "max_weight": 0.3, "sink_mass": 0.2, "local_mass": 0.6, "distance": 0.4, "lookback": 0.3}


class Traffic:
    """A worker that never stops."""

    def __init__(self, endpoint: str) -> None:
        self.sent: list[float] = []
        """When each request went out, by its number."""
        self._endpoint = endpoint
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        time.sleep(0.5)  # what is on the way arrives

    def _run(self) -> None:
        with zmq.Context() as sockets, sockets.socket(zmq.PUSH) as socket:
            socket.setsockopt(zmq.LINGER, 2000)
            socket.setsockopt(zmq.SNDHWM, 1000)
            socket.connect(self._endpoint)
            while not self._over.wait(0.05):
                number = len(self.sent)
                request = context(f"r-{number}", route=f"w{number}")
                frame = summary(
                    [(10, FEATURES, [0.2, 0.3, 0.1, 0.1, 0.3])], request=request, sequence=number, time_ns=time.time_ns(),
                    finished=[f"r-{number}"],
                )  # fmt: skip
                self.sent.append(time.monotonic())
                socket.send(codec.encode(frame))


def waits(url: str) -> float:
    found = re.search(r"^headwatch_spool_records (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 1.0


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    exporter = ClickHouseExporter.open(StoreConfig(url=f"chdb://{tmp_path}/store"))
    for statement in (TARGET, VIEW):
        exporter._connection.command(statement)
    exporter.close()
    return settings_of(
        tmp_path, free_port(), HEADWATCH_WINDOW_SECONDS=str(WINDOW_SECONDS), HEADWATCH_DRIFT_ENABLED="false",
        HEADWATCH_WIRE_CONTROL_ENDPOINT=f"ipc://{tmp_path}/control",
    )  # fmt: skip


@pytest.mark.parametrize("kills", KILLS)
def test_a_sidecar_loses_what_was_open_and_nothing_is_there_twice(tmp_path: Path, settings: dict[str, str], kills: int):
    chance, started, killed = random.Random(kills), [], []
    with Traffic(settings["HEADWATCH_WIRE_ENDPOINT"]) as traffic:
        for _ in range(kills):
            with sidecar(settings) as process:
                started.append(time.monotonic())
                time.sleep(1.0 + chance.random() * 6.0)
                process.kill()
                killed.append(time.monotonic())
        with sidecar(settings) as process:
            started.append(time.monotonic())
            time.sleep(2.0)
            traffic.stop()
            process.terminate()
            assert process.wait(60) == 0
    with sidecar(settings) as process:
        wait_for(lambda: waits(f"http://127.0.0.1:{settings['HEADWATCH_HTTP_PORT']}") == 0, "the spool to drain", 300)
        process.terminate()
        assert process.wait(60) == 0
    counts = stored(tmp_path)
    answer: Counter[str] = Counter()
    for number, moment in enumerate(traffic.sent):
        found = {name: counts[name].get(f"w{number}", (0, 0)) for name in counts}
        answer["twice"] += found["requests"][0] > 1 or found["base"][0] > MAX_SERIES or found["rows"][0] > 1
        answer["view differs"] += found["base"] != found["view"]
        was_open = any(end - OPEN_SECONDS <= moment <= end for end in killed)
        was_there = any(start <= moment <= end for start, end in zip(started, [*killed, math.inf], strict=True))
        if not was_there:  # what the wire does with it is its own affair
            continue
        here = {name for name, count in found.items() if count != (0, 0)}
        answer["sent"] += 1
        answer["whole"] += len(here) == len(found)
        answer["lost"] += not here
        answer["lost that was not open"] += not here and not was_open
        answer["in part, which was open"] += 0 < len(here) < len(found)  # the request had ended, its window was open
        answer["in part that was not open"] += 0 < len(here) < len(found) and not was_open
    print(f"{kills} kills: {dict(answer)}")
    assert answer["whole"] > answer["sent"] // 5
    for name in ("twice", "view differs", "lost that was not open", "in part that was not open"):
        assert answer[name] == 0, (name, answer)


MAX_SERIES = 6 * 17
"""Of one request: two layers of three heads, all features."""


def stored(folder: Path) -> dict[str, dict[str, tuple[int, int]]]:
    exporter = ClickHouseExporter.open(StoreConfig(url=f"chdb://{folder}/store"), SpoolConfig(), folder / "store.spool")
    try:
        state = exporter.spool_health()
        assert state is not None
        assert (state.records, state.dropped_batches, state.aside_batches) == (0, {}, 0)
        answers = {name: exporter._connection.query(sql) for name, sql in COUNTS.items()}
    finally:
        exporter.close()
    return {name: {row["route"]: (row["n"], row["m"]) for row in rows} for name, rows in answers.items()}
