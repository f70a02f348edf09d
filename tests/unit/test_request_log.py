"""The log of requests: what a line says, that it is whole, that it rotates."""

from __future__ import annotations

import errno
import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from headwatch.config import RequestsConfig
from headwatch.delivery import QUEUE_DELIVERIES, ExporterThread
from headwatch.errors import ConfigError, ExportError
from headwatch_exporters.request_log import RequestLog

from ..contract import deliveries
from ..programs import wait_for

if TYPE_CHECKING:
    from pathlib import Path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_the_provenance_of_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "requests.jsonl"
    log = RequestLog(RequestsConfig(log_path=str(path)))
    delivery = deliveries.full()
    assert log.export(delivery) == 3
    log.close()
    assert path.stat().st_mode & 0o777 == 0o600
    for number, line in enumerate(lines(path)):
        assert line["engine_id"] == f"r-{number}"
        assert line["grounding"]["state"] == "measured"
        assert line["grounding"]["ratio"] == pytest.approx(deliveries.RATIOS[number], abs=1e-5)
        assert line["grounding"]["ratio_retrieval_heads"] == pytest.approx(deliveries.RETRIEVAL_RATIOS[number], abs=1e-5)
        assert [document["share"] for document in line["documents"]] == pytest.approx(deliveries.DOCUMENT_SHARES, abs=1e-5)
        assert [document["rank"] for document in line["documents"]] == [0, 1]
        assert all(document["tokens"] > 0 for document in line["documents"])
        assert line["flags"] == []
        assert line["time"].endswith("Z")


def test_what_is_undefined_is_null_and_flagged(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    log = RequestLog(RequestsConfig(log_path=str(path)))
    log.export(deliveries.undefined())
    by_id = {line["engine_id"]: line for line in lines(path)}
    assert by_id["r-absent"]["flags"] == ["documents_absent"]
    assert by_id["r-prefill"]["flags"] == ["grounding_unresolved"]
    assert all(line["grounding"]["ratio"] is None for line in by_id.values())


def test_files_rotate_and_only_so_many_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    log = RequestLog(RequestsConfig(log_path=str(path), log_max_bytes=1, log_files=3))
    delivery = deliveries.full()
    for _ in range(5):
        log.export(delivery)
    kept = sorted(item.name for item in tmp_path.iterdir())
    assert kept == ["requests.jsonl", "requests.jsonl.1", "requests.jsonl.2"]
    assert [len(lines(tmp_path / name)) for name in kept] == [3, 3, 3]


def test_a_delivery_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "requests.jsonl"
    log = RequestLog(RequestsConfig(log_path=str(path)))
    log.export(deliveries.full())
    real = os.write
    calls = iter([lambda file, data: real(file, data[:100])])

    def full_disk(file: int, data: bytes) -> int:
        write = next(calls, None)
        if write is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", full_disk)
    with pytest.raises(ExportError, match="No space left"):
        log.export(deliveries.full())
    monkeypatch.undo()
    assert len(lines(path)) == 3, "the part of a line is gone"
    log.export(deliveries.full())
    assert len(lines(path)) == 6


def test_a_log_that_cannot_be_written_says_so_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"requests\.log_path"):
        RequestLog(RequestsConfig(log_path=str(tmp_path / "file" / "requests.jsonl")))


def test_standard_output_takes_lines(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert RequestLog(RequestsConfig(log_path="-")).export(deliveries.full()) == 3
    assert len(capfdbinary.readouterr().out.splitlines()) == 3


def test_a_rotation_that_cannot_open_a_file_costs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "requests.jsonl"
    log = RequestLog(RequestsConfig(log_path=str(path), log_max_bytes=1, log_files=2))
    log.export(deliveries.full())
    log.export(deliveries.full())
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir()}
    real = os.open

    def full_table(name: Path, *rest: int) -> int:
        if str(name).endswith(".new"):
            raise OSError(errno.EMFILE, "Too many open files")
        return real(name, *rest)

    monkeypatch.setattr(os, "open", full_table)
    for _ in range(3):
        with pytest.raises(ExportError, match="Too many open files"):
            log.export(deliveries.full())
    monkeypatch.undo()
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == before
    path.unlink()
    log.export(deliveries.full())
    assert len(lines(path)) == 3, "a file that somebody took away is made again"


def test_a_full_disk_is_counted_and_holds_up_nobody() -> None:
    thread = ExporterThread(RequestLog(RequestsConfig(log_path="/dev/full")), first_pause_seconds=0.005)
    thread.start()
    delivery = deliveries.full()
    started = time.monotonic()
    for _ in range(QUEUE_DELIVERIES * 3):
        thread.offer(delivery)
    assert time.monotonic() - started < 1.0
    wait_for(lambda: thread.health().dropped_batches >= QUEUE_DELIVERIES, "deliveries are dropped")
    wait_for(lambda: not thread.health().up, "one was tried")
    health = thread.health()
    assert "No space left" in health.last_error
    assert health.errors > 0
    assert health.queue_batches <= QUEUE_DELIVERIES
    thread.stop()


def test_a_log_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    log = RequestLog(RequestsConfig(log_path=str(path)))
    log.export(deliveries.full())
    path.rename(tmp_path / "requests.jsonl.1")
    log.export(deliveries.undefined())
    log.close()
    assert len(lines(tmp_path / "requests.jsonl.1")) == 3
    assert {"r-absent"} <= {line["engine_id"] for line in lines(path)}


def test_old_files_go_also_where_no_request_comes(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    log = RequestLog(RequestsConfig(log_path=str(path), log_days=2))
    old = tmp_path / "requests.jsonl.1"
    old.touch()
    os.utime(old, (time.time() - 3 * 86_400,) * 2)
    log.export(deliveries.empty(time.time_ns()))
    assert not old.exists()
    log.close()
