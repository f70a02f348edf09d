"""Mutated configuration files: each is loaded, or refused in one line that names the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headwatch.config_file import load
from headwatch.errors import ConfigError

from .harness import feed

if TYPE_CHECKING:
    from pathlib import Path

FILES = [
    b'[wire]\nendpoint = "tcp://127.0.0.1:9465"\nallow_remote = false\nqueue_frames = 256\n[http]\nport = 9464\n',
    b'[capture]\nsample_rate = 0.05\nstep_stride = 8\n[[capture.routes]]\nroute = "support"\nsample_rate = 1.0\n',
    b'[store]\nurl = "https://user:swordfish@host:8123/db"\nhead_ttl_days = 1\n[otlp]\nendpoint = "http://host:4317"\n',
    b'[drift]\nfalse_alarm_days = 30\nshadow_families = ["lasting.8"]\n[drift.feature_weights]\nlookback = 2.0\n',
    b'[privacy]\nhash = ["user", "document"]\nrotate_days = 30\n[requests]\nlog_path = "-"\n',
]


@pytest.mark.parametrize("count", [500, pytest.param(5_000, marks=pytest.mark.long)])
def test_every_file_is_loaded_or_refused_in_one_line(tmp_path: Path, count: int) -> None:
    path = tmp_path / "headwatch.toml"
    messages: list[str] = []

    def take(payload: bytes) -> str:
        path.write_bytes(payload)
        try:
            load(path=str(path), environ={})
        except ConfigError as error:
            messages.append(str(error))
            return "refused"
        return "loaded"

    said = feed(count, FILES, take)
    assert min(said["refused"], said["loaded"]) > count // 50, said
    for message in messages:
        assert message.strip()
        assert len(message.splitlines()) == 1, message
        assert "swordfish" not in message, "a password"
