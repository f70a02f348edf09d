"""A real vLLM server with the plugin and a receiver of canaries beside it: what the canary benchmark and its tests run on.

Weights can be replaced while the server runs (vLLM's development endpoint ``/collective_rpc``, ``reload_weights``), so that a
dozen altered models cost one start.  Traffic of its own keeps batches changing while canaries run.
"""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from headwatch.canary.client import CanaryClient
from headwatch.canary.prompts import BUILT_IN
from headwatch.canary.send import send_all
from headwatch.config import CanaryConfig, Config, WireConfig
from headwatch.demo.processes import Server
from headwatch.demo.servers import SERVED_MODEL, VLLM_START_SECONDS, Addresses, vllm_command, vllm_environ
from headwatch.errors import CanaryError, CommandError
from headwatch.stand_alone import StandAlone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwatch.canary.signature import Run

TIMEOUT_SECONDS = 300.0
_WORDS = tuple("river stone harbour light evening train paper window number garden winter letter engine signal".split())  # noqa: SIM905


@dataclass
class Stage:
    """The running server."""

    addresses: Addresses
    alone: StandAlone
    client: CanaryClient
    served: list[float] = field(default_factory=list)
    """Seconds that each canary run took."""

    def run(self, company: int = 0) -> Run:
        """Return one canary run.

        Raises:
            CanaryError: It is incomplete.
        """
        started = time.perf_counter()
        found = send_all(self.client, self.alone.collector, BUILT_IN, time.time_ns, company=company)
        self.served.append(time.perf_counter() - started)
        if found.failures:
            raise CanaryError("incomplete", f"a canary run is incomplete: {found.failures}")
        return found

    def reload(self, model: Path) -> None:
        """Replace the server's weights by those of *model*.

        Raises:
            CommandError: The server refuses.
        """
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(model)}}
        answer = httpx.post(f"{self.addresses.vllm}/collective_rpc", json=body, timeout=TIMEOUT_SECONDS, trust_env=False)
        if answer.status_code != httpx.codes.OK:
            raise CommandError(f"the server did not reload its weights: {answer.status_code} {answer.text[:200]}")

    def metrics(self) -> dict[str, float]:
        """Return the server's own metrics, summed over labels."""
        text = httpx.get(f"{self.addresses.vllm}/metrics", timeout=60.0, trust_env=False).text
        found: dict[str, float] = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.partition("{")[0].split(" ")[0], line.rpartition(" ")[2]
                found[name] = found.get(name, 0.0) + float(value)
        return found

    @contextmanager
    def traffic(self, threads: int, seed: int = 1) -> Iterator[None]:
        """Send ordinary requests of changing length on so many *threads* until the block ends."""
        ended = threading.Event()
        workers = [threading.Thread(target=self._ask, args=(seed + number, ended)) for number in range(threads)]
        for worker in workers:
            worker.start()
        try:
            if threads:
                time.sleep(2.0)  # until the first of them generate
            yield
        finally:
            ended.set()
            for worker in workers:
                worker.join()

    def _ask(self, seed: int, ended: threading.Event) -> None:
        chosen = random.Random(seed)  # noqa: S311 - lengths of requests
        with httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            while not ended.is_set():
                text = " ".join(chosen.choices(_WORDS, k=chosen.randint(5, 250)))
                client.post(
                    f"{self.addresses.vllm}/v1/chat/completions",
                    json={"model": SERVED_MODEL, "messages": [{"role": "user", "content": text}],
                          "max_tokens": chosen.randint(1, 40), "temperature": 0},
                )  # fmt: skip


@contextmanager
def vllm_serving(
    model: Path, work_dir: Path, dtype: str = "float32", *arguments: str, sample_rate: float = 0.05
) -> Iterator[Addresses]:
    """Start vLLM with the plugin on *model*, with further *arguments*, and end it whatever happens.

    Its configuration, ``headwatch.toml`` in *work_dir*, leaves capture its ordinary budget; *sample_rate* is of other traffic.

    Raises:
        CommandError: The server does not start.
    """
    addresses = Addresses.free()
    work_dir.mkdir(parents=True, exist_ok=True)
    path = work_dir / "headwatch.toml"
    path.write_text(f'[wire]\nendpoint = "{addresses.wire}"\n[capture]\nsample_rate = {sample_rate}\n', encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATCH_")}
    environ |= {"HEADWATCH_CONFIG": str(path), "VLLM_SERVER_DEV_MODE": "1"}
    command = vllm_command(model, addresses)
    command[command.index("--dtype") + 1] = dtype
    with Server("vLLM", [*command, *arguments], work_dir / "vllm.log", vllm_environ(environ)) as server:
        server.wait_until_healthy(f"{addresses.vllm}/health", VLLM_START_SECONDS)
        yield addresses


@contextmanager
def staged(model: Path, work_dir: Path, dtype: str = "float32", *arguments: str) -> Iterator[Stage]:
    """Serve *model* with a receiver and a client beside it: see :func:`vllm_serving`."""
    with vllm_serving(model, work_dir, dtype, *arguments) as addresses:
        config = Config(
            wire=WireConfig(endpoint=addresses.wire),
            canary=CanaryConfig(endpoint=addresses.vllm, timeout_seconds=TIMEOUT_SECONDS),
        )
        with StandAlone(config) as alone, CanaryClient(config.canary) as client:
            yield Stage(addresses, alone, client)
