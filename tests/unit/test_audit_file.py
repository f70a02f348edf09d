"""The audit as a file: every read is in it, what cannot be written is counted and shown, and reading goes on."""

from __future__ import annotations

import json
import logging
import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from headwatch.config import AuditConfig
from headwatch.errors import ConfigError
from headwatch_exporters.audit_file import WAITING_BYTES, AuditFile

from .sidecars import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def auditing(config: AuditConfig) -> Iterator[AuditFile]:
    audit = AuditFile(config)
    audit.begin()
    try:
        yield audit
    finally:
        audit.end()


def test_reads_and_refused_changes_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with serving() as url, auditing(AuditConfig(path=str(path))):
        httpx.get(f"{url}/api/v1/requests", params={"route": "zebra"})
        httpx.post(f"{url}/api/v1/control", json={"action": "off"}, headers={"Authorization": "Bearer zebra-token"})
        httpx.get(f"{url}/metrics")
    noted = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["method"], one["path"], one["status"]) for one in noted] == [
        ("GET", "/api/v1/requests", 200), ("POST", "/api/v1/control", 403),
    ]  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o600
    assert "zebra" not in path.read_text(), "neither values nor secrets"
    logging.getLogger("headwatch.audit").info("after the end")
    assert "after" not in path.read_text()


def test_the_file_is_put_aside_at_its_size(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with serving() as url, auditing(AuditConfig(path=str(path), max_bytes=1, files=2)):
        for _ in range(3):
            httpx.get(f"{url}/api/v1/arms")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["audit.jsonl", "audit.jsonl.1"]


def test_what_cannot_be_written_is_counted_and_reading_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as url, auditing(AuditConfig(path="/dev/full")) as audit:
        for _ in range(3):
            assert httpx.get(f"{url}/api/v1/arms").status_code == 200
    assert audit.failure == "3 reads are not in the file: No space left on device"
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "reads are not audited: No space left on device"
    ]


def test_a_file_that_cannot_be_opened_is_one_line_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"audit\.path"):
        AuditFile(AuditConfig(path=str(tmp_path / "file" / "audit.jsonl")))


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    held = Slow(tmp_path / "pipe")
    yield held
    held.close()


class Slow:
    """A file that takes nothing until it is told to: a pipe that is full."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._read = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._write = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        self.before = 0
        with suppress(BlockingIOError):
            while True:
                self.before += os.write(self._write, b"x" * 65_536)
        os.close(self._write)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._take)

    def go_on(self) -> None:
        os.set_blocking(self._read, True)
        self._reader.start()

    def finish(self) -> list[str]:
        self._reader.join()
        return self.lines

    def _take(self) -> None:
        with os.fdopen(os.dup(self._read), "rb") as stream:
            self.lines = stream.read()[self.before :].decode().splitlines()

    def close(self) -> None:
        os.close(self._read)


def test_a_disk_that_takes_nothing_holds_up_no_read_and_what_waited_is_written_at_the_end(slow: Slow) -> None:
    with serving() as url, auditing(AuditConfig(path=str(slow.path))) as audit:
        for _ in range(3):
            assert httpx.get(f"{url}/api/v1/arms", timeout=5).status_code == 200
        assert httpx.get(f"{url}/healthz", timeout=5).status_code == 200
        assert audit.failure == ""
        slow.go_on()
    assert [json.loads(line)["path"] for line in slow.finish()] == ["/api/v1/arms"] * 3


def test_what_finds_no_room_to_wait_is_counted_and_shown(slow: Slow, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("headwatch.audit")
    with auditing(AuditConfig(path=str(slow.path))) as audit:
        for _ in range(5):
            log.info("y" * (WAITING_BYTES // 4))
        assert audit.failure == "2 reads are not in the file: the disk is too slow"
        slow.go_on()
    assert [len(line) for line in slow.finish()] == [WAITING_BYTES // 4] * 3
    assert audit.failure == ""
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "reads are not audited: the disk is too slow"
    ]
