"""``headwatch demo --record-baseline``: what the demo's model does while nothing is wrong, recorded as a history.

The demo has no day to learn what is normal, so it ships what was normal when this was recorded: every question of its corpus,
asked several times with right documents, each time in another order and in other words.  Model, documents, settings and the
window's length are the demo's own.  The file says where it comes from: questions, seed, machine, versions, date, command.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from headwatch.bench.machine import describe
from headwatch.config_file import load
from headwatch.demo.api import SidecarApi
from headwatch.demo.corpus import Question, load_corpus
from headwatch.demo.model import MODEL_NAME, prepare_model
from headwatch.demo.prompts import MAX_TOKENS, plan_requests
from headwatch.demo.readback import wait_for_requests
from headwatch.demo.run import make_work_dir, packaged_head_map, token_counter
from headwatch.demo.servers import CONFIG_FILE, SERVED_MODEL, WINDOW_REQUESTS, running_pair
from headwatch.demo.traffic import CONCURRENCY, send_requests
from headwatch.errors import CommandError
from headwatch.history.file import History
from headwatch.places import drift_folder

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from headwatch.demo.prompts import DemoRequest

PASSES = 10
SEED = 20_260_602
ARM = "baseline"
FRAMES = (
    "{question}",
    "Please tell me: {question}",
    "A colleague wants to know: {question}",
    "{question} Answer briefly.",
    "Quick question for today: {question}",
    "{question} Thank you.",
    "I could not find this anywhere. {question}",
)
"""How people ask; the demo's phases ask in the first way."""
_PLAIN_SHARE = 0.5
"""Of the requests, those that ask in the first way."""


def record_baseline(target: Path, work_dir: Path, progress: Console) -> int:
    """Record healthy windows into the file *target* and return how many; servers work in *work_dir*.

    Raises:
        CommandError: The model or a server does not do what it should.
        HistoryError: The file cannot be written.
    """
    work_dir = make_work_dir(work_dir)
    model = prepare_model(on_stage=progress.print)
    plan = plan_requests(load_corpus(), {ARM: "right"}, token_counter(model))[ARM]
    requests = asked_again(plan)
    progress.print(f"starting vLLM and the sidecar, then {len(requests)} requests")
    with running_pair(model, work_dir, packaged_head_map()) as pair, SidecarApi(pair.addresses.sidecar) as api:
        send_requests(pair.addresses.vllm, SERVED_MODEL, requests)
        pair.check()
        wait_for_requests(api, {ARM: len(requests)})
        history = drift_folder(load(path=str(work_dir / CONFIG_FILE)).config) / "history.db"
        _wait_for_windows(history, len(requests) // WINDOW_REQUESTS)
        with History.open_readonly(history) as kept:
            return kept.export(target, provenance(len(requests)))


def asked_again(plan: tuple[DemoRequest, ...]) -> tuple[DemoRequest, ...]:
    """Return the requests of *plan* :data:`PASSES` times over, each time in another order and in other words."""
    random = np.random.default_rng(SEED)
    found = []
    for _ in range(PASSES):
        for place in random.permutation(len(plan)):
            frame = FRAMES[0] if random.random() < _PLAIN_SHARE else FRAMES[int(random.integers(1, len(FRAMES)))]
            question = plan[place].question
            text = frame.format(question=question.text)
            found.append(replace(plan[place], question=Question(text, question.route, question.document_id)))
    return tuple(found)


def provenance(requests: int) -> dict[str, Any]:
    """Return what the file says of its origin."""
    return {
        "what": f"healthy traffic of `headwatch demo`: every question {PASSES} times, with right documents",
        "model": MODEL_NAME, "requests": requests, "window_requests": WINDOW_REQUESTS, "max_tokens": MAX_TOKENS,
        "concurrency": CONCURRENCY, "seed": SEED, "machine": msgspec.to_builtins(describe()),
        "recorded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": "headwatch demo --record-baseline sidecar/headwatch/demo/baseline.history",
    }  # fmt: skip


def _wait_for_windows(path: Path, count: int, timeout_seconds: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while True:
        if path.is_file():
            with History.open_readonly(path) as history:
                if len(history.numbers()) >= count:
                    return
        if time.monotonic() > deadline:
            raise CommandError(f"{count} windows were not observed within {timeout_seconds:.0f} s of the last answer")
        time.sleep(0.5)
