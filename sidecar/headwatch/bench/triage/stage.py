"""The real pair that scenarios are recorded on: vLLM's OpenAI server, a relay on the wire, and one sidecar for all of it.

The sidecar lives through the whole recording, as in production; engines come and go beside it, at the same address, as they do
in a deploy.  What it observes goes into its history, from which recordings are cut.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import httpx

from headwatch.bench.triage import layer_fault
from headwatch.bench.triage.variants import write_variant
from headwatch.bench.triage.wire_faults import Relay
from headwatch.demo.processes import Server as Process
from headwatch.demo.processes import free_ports
from headwatch.demo.run import packaged_head_map
from headwatch.demo.servers import SERVED_MODEL, vllm_environ
from headwatch.errors import CommandError
from headwatch.history.file import History
from headwatch.secret_file import write_secret

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from headwatch.bench.triage.scenarios import Server
    from headwatch.observed import ObservedWindow

WINDOW_REQUESTS = 6
STEP_STRIDE = 2
CANARY_SECONDS = 2.0
"""Between two runs: nearly every window has one, of which the judge passes on those that are due or asked for."""
MAX_MODEL_TOKENS = 1536
MAX_SEQUENCES = 16
_START_SECONDS = 600.0
_SIDECAR_SECONDS = 60.0
_PINNING_SECONDS = 180.0
IDLE_SECONDS = 40
"""A request whose end was lost is taken as ended; none that still runs may pause for so long, also on a busy machine."""
_POLL_SECONDS = 0.2
_VARIANTS = {
    "int8": "int8", "int4": "int4", "altered_weight": "altered_weight", "dead_head": "dead_head",
    "fine_tuned_layer": "fine_tuned_layer", "adapter": "adapter", "template_newline": "template_newline",
}  # fmt: skip
"""Servers that load an altered copy of the model."""


class Stage:
    """A context manager; leaving it ends every process."""

    def __init__(self, model: Path, work_dir: Path, tape: Path | None = None) -> None:
        self.model, self.work_dir = model, work_dir
        vllm, http, wire, behind, control = free_ports(5)
        self.vllm = f"http://127.0.0.1:{vllm}"
        self.sidecar = f"http://127.0.0.1:{http}"
        self.relay = Relay(f"tcp://127.0.0.1:{wire}", f"tcp://127.0.0.1:{behind}", tape=tape)
        self._port = vllm
        self._token = work_dir / "control.token"
        secret = work_dir / "control.secret"
        for path in (self._token, secret):
            write_secret(path)
        shared: dict[str, object] = {
            "control_endpoint": f"tcp://127.0.0.1:{control}", "control_secret_file": str(secret),
            "control_state_file": str(work_dir / "control.json"),  # an order that a killed recording left holds for no other
        }  # fmt: skip
        self.settings: dict[str, dict[str, object]] = {
            "capture": {"sample_rate": 1.0, "step_stride": STEP_STRIDE, "budget_share": 1.0},
            "window": {"requests": WINDOW_REQUESTS, "request_idle_seconds": IDLE_SECONDS},
            "grounding": {"head_map": str(packaged_head_map() or "")},
            "store": {"enabled": False},
            "http": {"port": http, "token_file": str(self._token)},
            "drift": {"folder": str(work_dir / "drift"), "shadow": True},
            "canary": {"endpoint": self.vllm, "interval_seconds": CANARY_SECONDS},
        }
        self._worker_config = self._write("worker.toml", {"wire": {"endpoint": f"tcp://127.0.0.1:{wire}"} | shared})
        self._sidecar_config = self._write("sidecar.toml", {"wire": {"endpoint": f"tcp://127.0.0.1:{behind}"} | shared})
        self._stack = ExitStack()
        self._engine: Process | None = None
        self._sidecar: Process | None = None

    @property
    def config(self) -> Path:
        """Return the sidecar's configuration file."""
        return self._sidecar_config

    def serve(self, server: Server) -> None:
        """Put *server* in the place of the engine that runs, and return once it answers.

        Raises:
            CommandError: It does not start.
        """
        if self._engine is not None:
            self._engine.stop()
            self._engine = None
        environ = _environ(self._worker_config)
        if server == "refused_layers":
            folder = layer_fault.install(self.work_dir / "layer_fault")
            environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), environ.get("PYTHONPATH", ""))))
        log = self.work_dir / f"vllm-{server}.log"
        self._engine = Process(f"vLLM ({server})", self._command(server), log, environ)
        self._engine.wait_until_healthy(f"{self.vllm}/health", _START_SECONDS, self.check_sidecar)

    def check(self) -> None:
        """Return if the pair is alive.

        Raises:
            CommandError: One of them has ended.
        """
        self.check_sidecar()
        if self._engine is not None:
            self._engine.check()

    def check_sidecar(self) -> None:
        """Return if the sidecar is alive.

        Raises:
            CommandError: It has ended.
        """
        if self._sidecar is not None:
            self._sidecar.check()

    def start_sidecar(self) -> None:
        """Start the sidecar and return once it answers; it runs until the stage is left.

        Raises:
            CommandError: It does not start.
        """
        command = [sys.executable, "-m", "headwatch.cli.main", "sidecar"]
        log = self.work_dir / "sidecar.log"
        self._sidecar = self._stack.enter_context(Process("the sidecar", command, log, _environ(self._sidecar_config)))
        self._sidecar.wait_until_healthy(f"{self.sidecar}/healthz", _SIDECAR_SECONDS)

    def order_sample_rate(self, rate: float) -> None:
        """Order *rate* of every worker by live control; 1.0 takes the order back.

        Raises:
            CommandError: The sidecar refuses.
        """
        change = {"action": "reset"} if rate >= 1.0 else {"action": "set", "to": {"sample_rate": rate}}
        token = self._token.read_text(encoding="ascii").strip()
        answer = httpx.post(f"{self.sidecar}/api/v1/control", json=change | {"who": "bench triage"},
                            headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=10.0)  # fmt: skip
        if answer.status_code != httpx.codes.OK:
            raise CommandError(f"live control answered {answer.status_code}: {answer.text[:300]}")

    def wait_for_fingerprint(self) -> None:
        """Return once the canaries of the engine that runs are pinned: what every later run is held against.

        Raises:
            CommandError: They are not within two minutes.
        """
        deadline = time.monotonic() + _PINNING_SECONDS
        while not (self.work_dir / "drift" / "fingerprints" / "pinned.json").is_file():
            self.check()
            if time.monotonic() > deadline:
                raise CommandError("canaries were not pinned; the sidecar's log says why")
            time.sleep(_POLL_SECONDS)

    def last_window(self) -> int:
        """Return the number of the last observed window; -1 where there is none yet."""
        if not self._history.is_file():
            return -1
        with History.open_readonly(self._history) as history:
            span = history.span()
        return -1 if span is None else span[1]

    def windows_after(self, number: int) -> list[ObservedWindow]:
        """Return the observed windows behind *number*."""
        if not self._history.is_file():
            return []
        with History.open_readonly(self._history) as history:
            return list(history.read(number + 1))

    def wait_for_window(self, number: int, timeout_seconds: float) -> bool:
        """Return whether window *number* was observed within *timeout_seconds*."""
        deadline = time.monotonic() + timeout_seconds
        while self.last_window() < number:
            self.check()
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    @property
    def _history(self) -> Path:
        return self.work_dir / "drift" / "history.db"

    def _command(self, server: Server) -> list[str]:
        model = self.model
        if server in _VARIANTS:
            model = write_variant(_VARIANTS[server], self.model, self.work_dir / "variant")
        return [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(model), "--served-model-name", SERVED_MODEL, "--host", "127.0.0.1", "--port", str(self._port),
            "--dtype", "bfloat16" if server == "bfloat16" else "float32", "--max-model-len", str(MAX_MODEL_TOKENS),
            "--max-num-seqs", str(MAX_SEQUENCES), "--enforce-eager",
        ]  # fmt: skip

    def _write(self, name: str, more: dict[str, dict[str, object]]) -> Path:
        lines = ["# Written by `headwatch bench triage --record`."]
        for section, values in (self.settings | more).items():
            # A JSON string, number or boolean is a TOML one as well.
            lines += ["", f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        path = self.work_dir / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def __enter__(self) -> Self:
        self._stack.enter_context(self.relay)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._engine is not None:
            self._engine.stop()
        self._stack.close()


def _environ(config: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATCH_")}
    return vllm_environ(own) | {"HEADWATCH_CONFIG": str(config), "VLLM_CPU_KVCACHE_SPACE": "4"}
