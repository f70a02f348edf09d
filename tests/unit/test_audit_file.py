"""The audit as a file: every read is in it, what cannot be written is counted and shown, and reading goes on."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from headwatch.config import AuditConfig
from headwatch.errors import ConfigError
from headwatch_exporters.audit_file import AuditFile

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
    with auditing(AuditConfig(path=str(path))), serving() as url:
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
    with auditing(AuditConfig(path=str(path), max_bytes=1, files=2)), serving() as url:
        for _ in range(3):
            httpx.get(f"{url}/api/v1/arms")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["audit.jsonl", "audit.jsonl.1"]


def test_what_cannot_be_written_is_counted_and_reading_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with auditing(AuditConfig(path="/dev/full")) as audit:
        with serving() as url:
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
