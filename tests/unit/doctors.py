"""What the doctor sees where all is well, and what it sees where no sidecar is."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

from headwatch import __version__
from headwatch.config_file import load
from headwatch.doctor.context import Context
from headwatch.doctor.probe import Probe

from .sidecars import health, reporting

SOUND = Context(
    python=(3, 11),
    engine="0.32.0",
    plugins={"headwatch": "headwatch.capture.plugin:register"},
    environ={},
    loaded=load(environ={}),
    config_error="",
    missing_modules=(),
    url="http://127.0.0.1:9464",
    sidecar=Probe("headwatch", "", __version__, health(reporting())),
)


def with_settings(**settings: Any) -> Context:
    return replace(SOUND, loaded=load(environ={}, overrides={name.replace("__", "."): v for name, v in settings.items()}))


DOWN = Probe("none", "nothing listens there")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
