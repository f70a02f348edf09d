"""Each read through the API is one line: names of parameters, never their values."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest

from .sidecars import serving


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == "headwatch.audit"]


def test_reads_are_noted_without_what_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headwatch.audit")
    with serving() as url:
        assert httpx.get(f"{url}/api/v1/requests", params={"route": "zebra-route", "limit": "2"}).status_code == 200
        assert httpx.get(f"{url}/api/v1/requests", params={"zebra": "1"}).status_code == 400
        assert httpx.get(f"{url}/api/v1/nothing").status_code == 404
        for path in ("/metrics", "/healthz", "/readyz", "/api/v1/status", "/"):
            httpx.get(f"{url}{path}")
    noted = lines(caplog)
    assert [(one["path"], one["parameters"], one["status"]) for one in noted] == [
        ("/api/v1/requests", ["limit", "route"], 200), ("/api/v1/requests", ["zebra"], 400), ("/api/v1/nothing", [], 404),
    ]  # fmt: skip
    assert all(one["surface"] == "api" and one["peer"] == "127.0.0.1" and one["seconds"] >= 0 for one in noted)
    assert "zebra-route" not in caplog.text


def test_a_long_path_and_many_parameters_make_a_short_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headwatch.audit")
    with serving() as url:
        httpx.get(f"{url}/api/{'x' * 5000}?" + "&".join(f"p{number}=1" for number in range(200)))
    (one,) = lines(caplog)
    assert len(one["path"]) == 256
    assert len(one["parameters"]) == 16


def test_another_host_is_noted_as_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headwatch.audit")
    with serving() as url:
        for path in ("/api/v1/arms", "/clickhouse", "/metrics"):
            httpx.get(f"{url}{path}", headers={"Host": "evil.example"})
    assert [(one["path"], one["status"]) for one in lines(caplog)] == [
        ("/api/v1/arms", 400), ("/clickhouse", 400), ("/metrics", 400),
    ]  # fmt: skip
