"""Which servers the demo starts, and how: the real vLLM OpenAI server with the plugin, and the sidecar beside it.

Both read one configuration file, which is written into the work folder; nothing else is needed to put headwatch beside
another server.  ``HEADWATCH_*`` variables of the caller are not handed on, so that the file says all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch.demo.processes import Server, free_ports
from headwatch.errors import CommandError
from headwatch.secret_file import write_secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVED_MODEL = "smollm2-135m-instruct"
MAX_MODEL_TOKENS = 2048
WINDOW_SECONDS = 10
"""Nominal: the demo's windows close by count."""
WINDOW_REQUESTS = 6
"""Seven windows a phase."""
INTERVAL_WINDOWS = 1000.0
"""What the demo promises: one false alarm in so many windows, everything that is watched together."""
CANARY_SECONDS = 20.0
CONFIG_FILE = "headwatch.toml"
VLLM_START_SECONDS = 600.0
SIDECAR_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the pair is reached."""

    vllm: str
    """``http://127.0.0.1:<port>``."""
    sidecar: str
    wire: str
    """ZeroMQ endpoint."""
    control: str = ""
    """ZeroMQ endpoint of live control."""

    @classmethod
    def free(cls) -> Addresses:
        """Return addresses on loopback ports that nobody listens on."""
        vllm, sidecar, wire, control = free_ports(4)
        return cls(
            f"http://127.0.0.1:{vllm}", f"http://127.0.0.1:{sidecar}", f"tcp://127.0.0.1:{wire}", f"tcp://127.0.0.1:{control}"
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """The running servers."""

    addresses: Addresses
    vllm: Server
    sidecar: Server

    def check(self) -> None:
        """Return if both are alive.

        Raises:
            CommandError: One has ended.
        """
        self.sidecar.check()
        self.vllm.check()


def config_text(
    addresses: Addresses, store: Path, head_map: Path | None, control: Control | None = None, *, canaries: bool = False
) -> str:
    """Return the configuration file of the pair: everything is sampled, windows are short.

    Without *control* live control is off; without *canaries* none are sent.
    """
    sections: dict[str, dict[str, object]] = {
        "capture": {"sample_rate": 1.0, "step_stride": 1, "budget_share": 1.0},
        "wire": {"endpoint": addresses.wire},
        "http": {"host": "127.0.0.1", "port": _port(addresses.sidecar)},
        "window": {"seconds": WINDOW_SECONDS, "requests": WINDOW_REQUESTS, "request_idle_seconds": 20},
        "grounding": {"head_map": str(head_map)} if head_map else {},
        "store": {"url": f"chdb://{store}"},
        "service": {"name": "headwatch-demo"},
        "drift": {"interval_windows": INTERVAL_WINDOWS, "min_stratum_rows": 2.0},
        "canary": {"endpoint": addresses.vllm, "interval_seconds": CANARY_SECONDS} if canaries else {},
    }
    if control is not None:
        sections["wire"] |= {"control_endpoint": addresses.control, "control_secret_file": str(control.secret)}
        sections["http"] |= {"token_file": str(control.token)}
    lines = ["# Written by `headwatch demo`; read by the plugin inside vLLM and by the sidecar (HEADWATCH_CONFIG)."]
    for section, values in sections.items():
        # A JSON string, number or boolean is a TOML one as well.
        lines += ["", f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Control:
    """What live control needs."""

    secret: Path
    token: Path

    @classmethod
    def made(cls, folder: Path) -> Control:
        """Return secrets in *folder*, written where they are missing."""
        control = cls(folder / "control.secret", folder / "control.token")
        for path in (control.secret, control.token):
            if not path.exists():
                write_secret(path)
        return control


def headwatch(work_dir: Path, *arguments: str) -> str:
    """Run a command of headwatch on the demo's configuration and return what it prints.

    Raises:
        CommandError: It fails; the message is its own.
    """
    command = [sys.executable, "-m", "headwatch.cli.main", *arguments]
    done = subprocess.run(command, env=_environ(work_dir), capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if done.returncode != 0:
        raise CommandError(f"headwatch {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
    return done.stdout


def _environ(work_dir: Path) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATCH_")}
    return environ | {"HEADWATCH_CONFIG": str(work_dir / CONFIG_FILE)}


@contextmanager
def running_pair(model: Path, work_dir: Path, head_map: Path | None, baseline: Path | None = None) -> Iterator[Pair]:
    """Start both servers, hand them over once they answer, and end them whatever happens.

    *baseline* is a recording of healthy windows, which is pinned before the sidecar starts.

    Raises:
        CommandError: A server does not start; the message shows the end of its log.
    """
    addresses = Addresses.free()
    (work_dir / CONFIG_FILE).write_text(
        config_text(addresses, work_dir / "store", head_map, Control.made(work_dir), canaries=True)
    )
    environ = _environ(work_dir)
    if baseline is not None:
        headwatch(work_dir, "baseline", "pin", str(baseline))
    sidecar_command = [sys.executable, "-m", "headwatch.cli.main", "sidecar"]
    with (
        Server("the sidecar", sidecar_command, work_dir / "sidecar.log", environ) as sidecar,
        # Started second and so ended first: what the engine still sends on its way down is received.
        Server("vLLM", vllm_command(model, addresses), work_dir / "vllm.log", vllm_environ(environ)) as vllm,
    ):
        pair = Pair(addresses, vllm, sidecar)
        sidecar.wait_until_healthy(f"{addresses.sidecar}/healthz", SIDECAR_START_SECONDS)
        vllm.wait_until_healthy(f"{addresses.vllm}/health", VLLM_START_SECONDS, sidecar.check)
        yield pair


def vllm_command(model: Path, addresses: Addresses) -> list[str]:
    """Return the command line of the OpenAI server.  Eager: compiling costs more time than it saves here."""
    return [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(model), "--served-model-name", SERVED_MODEL,
        "--host", "127.0.0.1", "--port", str(_port(addresses.vllm)),
        "--dtype", "float32", "--max-model-len", str(MAX_MODEL_TOKENS), "--max-num-seqs", "8", "--enforce-eager",
    ]  # fmt: skip


def vllm_environ(environ: dict[str, str]) -> dict[str, str]:
    """Return *environ* for vLLM: no hub, no usage statistics, a small cache, and the plugin not filtered out."""
    own = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    return {name: value for name, value in environ.items() if name != "VLLM_PLUGINS"} | own


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
