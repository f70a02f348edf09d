"""The cross-check over HTTP: a vLLM server that has never heard of headwatch, and one with it at its defaults.

In the main measurement both arms live in one process, where "without" means that every hook has been taken out again.
Here the plain server is started with ``HEADWATCH_DISABLE=1``: its workers load the plugin's entry point and nothing else.
Both servers are up all the time and are sent the same work in turns, A B B A.  Two processes differ in where their memory
lies, which no interleaving averages out, so this is a check of the main figures and no replacement for them; and it is
where the resident memory of real workers is compared.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import msgspec
import numpy as np

from headwatch.bench.memory import rss_mib
from headwatch.bench.prompts import PromptMaker
from headwatch.bench.sidecar import running_sidecar
from headwatch.bench.statistics import Interval, paired_ratio
from headwatch.demo.processes import Server, free_ports
from headwatch.demo.servers import vllm_environ
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch.bench.prompts import Prompt

MODEL_NAME = "bench"
START_SECONDS = 600.0
REQUEST_TOKENS = 48
CYCLES = {1: 6, 4: 4}
"""Batch size to cycles; each is four batches of requests."""
_WORKER = "VLLM::Worker"


class ServerFigures(msgspec.Struct, frozen=True):
    """headwatch at its defaults over a server without it."""

    throughput_ratio: Interval
    """Tokens a second of whole requests, prefill included, over HTTP."""
    decode_ratio: Interval
    """Tokens a second from the first token on."""
    ttft_ratio: Interval
    itl_p50_ms: dict[str, float]
    """As a client sees it, by server, at batch 1."""
    itl_p99_ms: dict[str, float]
    worker_rss_mib: dict[str, float]
    """Resident memory of the two worker processes after the same work."""
    added_memory_mib: float
    requests: int


@dataclass(frozen=True, slots=True)
class Reply:
    """One streamed answer, as the client saw it."""

    first_token: float
    """Seconds from sending to the first token."""
    gaps: tuple[float, ...]
    """Seconds between later tokens."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of requests, sent at once."""

    seconds: float
    replies: tuple[Reply, ...]

    @property
    def speed(self) -> float:
        """Return tokens a second."""
        return sum(1 + len(reply.gaps) for reply in self.replies) / self.seconds

    @property
    def decode_speed(self) -> float:
        """Return tokens a second of each request from its first token on, summed."""
        return sum(len(reply.gaps) / sum(reply.gaps) for reply in self.replies)

    @property
    def first_token(self) -> float:
        """Return the mean time to first token."""
        return float(np.mean([reply.first_token for reply in self.replies]))


def compare_servers(model: Path, progress: Callable[[str], None] = lambda _: None) -> ServerFigures:
    """Return what two real servers show.

    Raises:
        CommandError: One does not start, or refuses a request.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 - seconds

    prompts = PromptMaker(AutoTokenizer.from_pretrained(model, local_files_only=True))
    ports = dict(zip(("plain", "headwatch"), free_ports(2), strict=True))
    addresses = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    with tempfile.TemporaryDirectory(prefix="headwatch-bench-") as folder, running_sidecar() as sidecar:
        progress("starting two servers, one without headwatch")
        plain = _server(model, ports["plain"], Path(folder) / "plain.log", HEADWATCH_DISABLE="1")
        with plain, _server(
            model, ports["headwatch"], Path(folder) / "headwatch.log", HEADWATCH_WIRE_ENDPOINT=sidecar.endpoint
        ) as other:
            servers = {"plain": plain, "headwatch": other}
            for name, server in servers.items():
                server.wait_until_healthy(f"{addresses[name]}/health", START_SECONDS)
            cycles = _measure(addresses, prompts, progress)
            memory = {name: round(_worker_rss_mib(server.pid), 1) for name, server in servers.items()}
    return _figures(cycles, memory)


def _measure(
    addresses: dict[str, str], prompts: PromptMaker, progress: Callable[[str], None]
) -> list[tuple[int, dict[str, list[Batch]]]]:
    cycles = []
    for batch in (4, 4):  # what is lazy is loaded
        for address in addresses.values():
            asyncio.run(send(address, prompts.batch(batch, 0), REQUEST_TOKENS))
    text = 0
    for batch, count in CYCLES.items():
        for number in range(count):
            progress(f"two servers, batch of {batch}: {number + 1} of {count}")
            order = ["plain", "headwatch"] if number % 2 else ["headwatch", "plain"]
            found: dict[str, list[Batch]] = {name: [] for name in addresses}
            for turn, name in enumerate(order + order[::-1]):
                sent = prompts.batch(batch, text + turn // 2)
                found[name].append(asyncio.run(send(addresses[name], sent, REQUEST_TOKENS)))
            text += 2
            cycles.append((batch, found))
    return cycles


async def send(address: str, prompts: Sequence[Prompt], max_tokens: int) -> Batch:
    """Send *prompts* at once to the server at *address*; return what came back.

    Raises:
        CommandError: The server refuses.
    """
    async with httpx.AsyncClient(timeout=None, trust_env=False) as client:  # noqa: S113 - a busy machine is slow
        started = time.perf_counter()
        replies = await asyncio.gather(*(_ask(client, address, prompt, max_tokens) for prompt in prompts))
        return Batch(time.perf_counter() - started, tuple(replies))


async def _ask(client: httpx.AsyncClient, address: str, prompt: Prompt, max_tokens: int) -> Reply:
    body = {
        "model": MODEL_NAME, "prompt": list(prompt.token_ids), "max_tokens": max_tokens, "temperature": 0,
        "ignore_eos": True, "stream": True, "vllm_xargs": prompt.field,
    }  # fmt: skip
    started = time.perf_counter()
    times: list[float] = []
    try:
        async with client.stream("POST", f"{address}/v1/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                raise CommandError(f"the server refuses a request: {(await response.aread()).decode()[:300]}")
            times.extend([
                time.perf_counter() async for line in response.aiter_lines() if line.startswith("data: {")
            ])  # fmt: skip
    except httpx.TransportError as error:
        raise CommandError(f"the server at {address} broke off: {error}") from error
    gaps = tuple(later - earlier for earlier, later in itertools.pairwise(times))
    return Reply(times[0] - started, gaps)


def _figures(cycles: list[tuple[int, dict[str, list[Batch]]]], memory: dict[str, float]) -> ServerFigures:
    def ratio(of: Callable[[Batch], float]) -> Interval:
        strata: dict[int, list[float]] = {}
        for batch, found in cycles:
            means = {name: float(np.mean([of(item) for item in items])) for name, items in found.items()}
            strata.setdefault(batch, []).append(means["headwatch"] / means["plain"])
        return paired_ratio(list(strata.values()))

    gaps = {
        name: np.array([gap for batch, found in cycles if batch == 1 for item in found[name]
                        for reply in item.replies for gap in reply.gaps])
        for name in memory
    }  # fmt: skip
    return ServerFigures(
        throughput_ratio=ratio(lambda item: item.speed),
        decode_ratio=ratio(lambda item: item.decode_speed),
        ttft_ratio=ratio(lambda item: item.first_token),
        itl_p50_ms={name: round(float(np.percentile(values, 50)) * 1e3, 3) for name, values in gaps.items()},
        itl_p99_ms={name: round(float(np.percentile(values, 99)) * 1e3, 3) for name, values in gaps.items()},
        worker_rss_mib=memory,
        added_memory_mib=round(memory["headwatch"] - memory["plain"], 1),
        requests=sum(len(item.replies) for _, found in cycles for items in found.values() for item in items),
    )


def _server(model: Path, port: int, log: Path, **settings: str) -> Server:
    environ = vllm_environ({name: value for name, value in os.environ.items() if not name.startswith("HEADWATCH_")})
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
        "--served-model-name", MODEL_NAME, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32",
        "--max-model-len", "2048", "--max-num-seqs", "16", "--enforce-eager",
    ]  # fmt: skip
    return Server(f"vLLM {'without' if 'HEADWATCH_DISABLE' in settings else 'with'} headwatch", command, log,
                  environ | settings)  # fmt: skip


def _worker_rss_mib(root: int) -> float:
    """Return the resident memory of the worker below process *root*; the largest process where none has its name."""
    family, sizes, workers = {root}, [0.0], []
    for folder in sorted(Path("/proc").iterdir(), key=lambda item: int(item.name) if item.name.isdigit() else 0):
        if not folder.name.isdigit():
            continue
        try:
            name, _, fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
            title = (folder / "cmdline").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if int(fields.split()[1]) in family:
            family.add(int(folder.name))
            size = rss_mib(folder.name)
            sizes.append(size)
            if _WORKER in name or _WORKER in title:
                workers.append(size)
    return max(workers or sizes)
