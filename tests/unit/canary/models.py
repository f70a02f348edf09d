"""A model that answers canaries in a known way, behind a real HTTP server: what a server and its worker are to the runner."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np

from headwatch.canary.prompts import CanaryPrompt, Message, PromptSet
from headwatch.canary.signature import Run, Signature
from headwatch.model import CANARY_ROWS, FEATURES, RequestContext, Span, WorkerIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from headwatch.canary.collector import Collector

LAYERS, HEADS, TOKENS = 6, 4, 20
PROMPTS = PromptSet("test-1", tuple(CanaryPrompt(name, (Message("user", name),)) for name in ("one", "two", "three")))


def worker(dtype: str = "float32", **changes: Any) -> WorkerIdentity:
    given: dict[str, Any] = {"instance": "engine", "rank": 0, "start_ns": 1, "model": "m", "revision": "r", "dtype": dtype,
                             "layers": LAYERS, "heads": HEADS, "engine_version": "0.32"}  # fmt: skip
    return WorkerIdentity(**(given | changes))


def values(prompt: str, layers: int = LAYERS, heads: int = HEADS) -> NDArray[np.float32]:
    """Return what the healthy model makes of *prompt*, [R, L, H, F]; lookback is undefined in a prompt's rows."""
    random = np.random.default_rng(sum(map(ord, prompt)))
    found = random.uniform(0.1, 0.9, (CANARY_ROWS, layers, heads, len(FEATURES))).astype(np.float32)
    found[..., FEATURES.index("lookback")] = np.nan
    return found


def signature(prompt: str, *, change: Any = None, dtype: str = "float32", **fields: Any) -> Signature:
    """Return a signature; *change* is added to the healthy values."""
    found = values(prompt)
    given: dict[str, Any] = {"prompt_tokens": TOKENS, "digest": "d", "adapter": "", "worker": worker(dtype)} | fields
    return Signature(prompt, values=found if change is None else (found + change).astype(np.float32), **given)


def run(*, change: Any = None, dtype: str = "float32", failures: dict[str, str] | None = None, **fields: Any) -> Run:
    """Return a run of all prompts; *change* is one array for all of them or a function of the prompt's name."""
    found = {}
    for prompt in PROMPTS.prompt:
        moved = change(prompt.name) if callable(change) else change
        found[prompt.name] = signature(prompt.name, change=moved, dtype=dtype, **fields)
    return Run(5, found, failures or {})


def noisy(seed: int, scale: float = 1e-3, change: Any = 0.0) -> Run:
    """Return a run with the noise of a 16-bit engine."""
    random = np.random.default_rng(seed)
    shape = (CANARY_ROWS, LAYERS, HEADS, len(FEATURES))
    return run(change=lambda _: random.normal(0, scale, shape) + change, dtype="bfloat16")


@dataclass
class ServedModel:
    """What the server answers, and what it was sent."""

    collector: Collector
    change: Any = 0.0
    glitches: int | None = None
    """For how many canaries *change* holds; None: for good."""
    dtype: str = "float32"
    status: int = 200
    refuses: str = ""
    """A prompt that is answered with 400."""
    silent: bool = False
    """Whether the worker sends no rows."""
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.bodies.append(body)
            number = len(self.bodies)
        marked = json.loads(body["vllm_xargs"]["headwatch"])
        name, request_id = marked["canary"], f"chatcmpl-{number}"
        if marked["capture"] == "full" and not self.silent:
            context = RequestContext(
                request_id, TOKENS, [Span("user", 0, TOKENS)], engine_id=f"{request_id}-0", canary=name, full=True,
                prompt_digest="d",
            )  # fmt: skip
            with self.lock:
                change = 0.0 if self.glitches == 0 else self.change
                if self.glitches:
                    self.glitches -= 1
            rows = (values(name) + change).astype(np.float32)
            for row in range(CANARY_ROWS):
                position = TOKENS - CANARY_ROWS + row
                self.collector.add(worker(self.dtype), context, position, rows[row], np.arange(LAYERS), slice(0, HEADS), 5)
        return {"id": request_id, "choices": []}


@contextmanager
def serving(model: ServedModel) -> Iterator[ServedModel]:
    """Serve *model* as an OpenAI server would."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._write({"data": [{"id": "served"}]})

        def do_POST(self) -> None:
            model.headers.append(dict(self.headers))
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if model.refuses and json.loads(body["vllm_xargs"]["headwatch"])["canary"] == model.refuses:
                self._write({}, 400)
            else:
                self._write(model.answer(body))

        def _write(self, document: dict[str, Any], status: int | None = None) -> None:
            body = json.dumps(document).encode()
            self.send_response(status or model.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    model.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
