"""A soak of 8,000 requests through real vLLM: memory stays, every summary is its request's own, every row is accounted for.

Memory counts from the 2,000th request on: until then the engine itself grows, with headwatch or without.
Lengths are random, four requests in ten share a prefix, one in ten has three samples, one in ten is aborted, the cache is so
small that requests are preempted.  Each prompt hides one marker token in one of six documents, and the model looks at
nothing else (marker_model.py): where capture says that a row looked tells whose row it was.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwatch.config_file import load
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry
from headwatch.model import FEATURES, RequestContext, SummaryBatch
from headwatch.wire.columns import Columns

from ..integration.tiny_models import save_tokenizer
from .marker_model import HEADS, build

pytestmark = [pytest.mark.engine, pytest.mark.long, pytest.mark.timeout(3600)]

HERE = Path(__file__).parent
REQUESTS = 8000
WARM = 2000
"""Requests after which memory must not grow any more."""
CONFIGURATION = """
[capture]
sample_rate = 0.0
step_stride = {step_stride}
prefill_stride = {prefill_stride}
max_rows_per_step = {max_rows}
budget_share = {budget_share}

[wire]
endpoint = "ipc://{folder}/frames"
queue_frames = {queue_frames}
status_seconds = 0.1
"""


@dataclass
class Seen:
    """What arrived of one sample of a request."""

    context: RequestContext
    positions: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    strayed: list[str] = field(default_factory=list)
    """Rows that did not look where their own prompt has its marker."""


class Inbox:
    """Judges each row as it arrives, and keeps little more than its position."""

    def __init__(self, sent_to: Path) -> None:
        self.sent_to = sent_to
        self.samples: dict[str, Seen] = {}
        self.rows = 0
        self.looked: list[tuple[str, int, int, float, float]] = []

    def consume(self, batch: SummaryBatch, columns: Columns) -> None:
        assert batch.heads == (HEADS if len(columns.request) else 0), "the last frame may only say which requests ended"
        for row, (number, position) in enumerate(zip(columns.request.tolist(), columns.position.tolist(), strict=True)):
            context = batch.requests[number]
            seen = self.samples.setdefault(context.engine_id, Seen(context))
            if seen.context != context:
                seen.strayed.append(f"the context changed at {position}")
            seen.positions.append(position)
            seen.weights.append(float(columns.weight[row]))
            self.rows += 1
            if batch.layers[0] == 0:  # the layer that looks at the marker
                mass = columns.span_mass[row][:, 0].mean(-1)  # [spans + 1]
                distance = float(columns.features[row, 0, :, FEATURES.index("distance")].mean())
                self.looked.append((context.engine_id, position, int(mass.argmax()), float(mass.max()), distance))


@dataclass
class Soaked:
    """Both sides of one soak."""

    told: dict[str, Any]
    sent: dict[int, dict[str, Any]]
    inbox: Inbox
    missing: int


def run(folder: Path, requests: int, **settings: Any) -> Soaked:
    model = folder / "model"
    build(model)
    save_tokenizer(model)
    text = CONFIGURATION.format(folder=folder, **settings)
    config = folder / "sidecar.toml"
    config.write_text(text)
    inbox, registry = Inbox(folder / "sent.jsonl"), WorkerRegistry()
    receiver = Receiver(load(path=str(config), environ={}).config.wire, registry, inbox.consume)
    receiver.start()
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / "soak_script.py"), str(model), str(folder), str(requests), text],
            check=False, capture_output=True, text=True, timeout=3000,
        )
    finally:
        receiver.stop()
    assert done.returncode == 0, done.stderr[-4000:]
    assert not [name for name in receiver.counters if name.startswith("rejected")], receiver.counters
    lines = [json.loads(line) for line in (folder / "sent.jsonl").read_text().splitlines()]
    (health,) = registry.health()
    return Soaked(json.loads(done.stdout), {line["number"]: line for line in lines}, inbox, health.frames_missing)


def number_of(context: RequestContext) -> int:
    return int(context.request_id.removeprefix("r"))


@pytest.fixture(scope="module")
def soaked(tmp_path_factory: pytest.TempPathFactory) -> Soaked:
    """Everything is sampled and nothing is thinned: the account can be exact."""
    return run(
        tmp_path_factory.mktemp("soak"), REQUESTS,
        step_stride=1, prefill_stride=8, max_rows=4096, budget_share=1.0, queue_frames=4096,
    )


def test_memory_does_not_grow_after_warm_up(soaked: Soaked, record_property: Any) -> None:
    memory = np.array([(ended, kib) for ended, kib in soaked.told["memory_kib"] if ended >= WARM], np.float64)
    (slope, start), residuals = np.polyfit(memory[:, 0], memory[:, 1], 1, full=True)[:2]
    spread = memory[:, 0] - memory[:, 0].mean()
    error = float(np.sqrt(residuals[0] / (len(memory) - 2) / (spread**2).sum()))
    text = f"{slope:.2f} ± {1.96 * error:.2f} KiB a request over {len(memory)} samples, from {start / 1024:.0f} MiB"
    print(text)  # noqa: T201 - the figure is reported
    record_property("memory_slope", text)
    assert slope < 1.0, text
    assert memory[-1, 1] - memory[0, 1] < 4096, text
    assert soaked.told["open_requests"] == 0, "an ended request leaves nothing behind"


def test_the_traffic_was_what_it_is_meant_to_be(soaked: Soaked) -> None:
    sent = list(soaked.sent.values())
    assert len(sent) == REQUESTS
    assert sum(item["generated"] is None for item in sent) > 50, "aborted"
    assert sum(item["n"] > 1 for item in sent) > 100
    assert len({item["prompt_tokens"] for item in sent}) > 150


def test_no_summary_is_another_request_s(soaked: Soaked) -> None:
    """By what it carries: its id, the length of its prompt, the ids and the places of its documents."""
    for engine_id, seen in soaked.inbox.samples.items():
        request = soaked.sent[number_of(seen.context)]
        assert not seen.strayed, (engine_id, seen.strayed)
        assert seen.context.prompt_tokens == request["prompt_tokens"]
        assert [item.id for item in seen.context.documents] == [item["id"] for item in request["documents"]]
        places = {span.document: (span.start, span.end) for span in seen.context.spans if span.document >= 0}
        assert places == {
            index: (item["start"], item["end"]) for index, item in enumerate(request["documents"])
        }


def test_every_row_looked_at_the_marker_of_its_own_prompt(soaked: Soaked) -> None:
    """By what was measured: the document with most of the mass, and the distance from the row to the marker."""
    judged, wrong = 0, []
    for engine_id, position, place, mass, distance in soaked.inbox.looked:
        seen = soaked.inbox.samples[engine_id]
        request = soaked.sent[number_of(seen.context)]
        if position < request["marker"]:
            continue
        judged += 1
        spans = seen.context.spans
        document = spans[place].document if place < len(spans) else -1
        expected = (position - request["marker"]) / max(position, 1)
        if document != request["marked"] or mass < 0.99 or abs(distance - expected) > 0.02:
            wrong.append((engine_id, position, document, request["marked"], mass, distance, expected))
    assert judged > 20_000
    assert not wrong, (len(wrong), wrong[:5])


def test_every_generated_row_of_every_sample_came_exactly_once(soaked: Soaked) -> None:
    """The token that is generated last is never a query, so a sample of n tokens has n - 1 decode rows."""
    samples: Counter[int] = Counter()
    for seen in soaked.inbox.samples.values():
        request, prompt = soaked.sent[number_of(seen.context)], seen.context.prompt_tokens
        samples[request["number"]] += 1
        assert len(set(seen.positions)) == len(seen.positions), "no position is sampled twice"
        decoded = sorted(position for position in seen.positions if position >= prompt)
        if request["generated"] is None:
            assert decoded == list(range(prompt, prompt + len(decoded)))
        else:
            assert len(decoded) + 1 in request["generated"]
            assert prompt - 1 in seen.positions
            assert decoded == list(range(prompt, prompt + len(decoded)))
    finished = [item for item in soaked.sent.values() if item["generated"] is not None]
    assert all(samples[item["number"]] == item["n"] for item in finished)


def test_the_account_of_rows_is_exact(soaked: Soaked) -> None:
    counters = soaked.told["counters"]
    assert counters["rows_planned"] == counters["rows_sent"] + counters["rows_dropped"] + counters["rows_refused"]
    assert soaked.inbox.rows == counters["rows_sent"]
    assert soaked.missing == counters["frames_dropped"]
    assert soaked.told["up"]
    assert soaked.told["errors"] == {}


def test_the_account_is_exact_where_rows_are_thinned_and_dropped(tmp_path: Path) -> None:
    """A budget of 5 %, six rows a step, a queue of two frames: every way of losing a row is used, and each is counted."""
    soaked = run(
        tmp_path, 1000, step_stride=1, prefill_stride=16, max_rows=6, budget_share=0.05, queue_frames=2,
    )
    counters = soaked.told["counters"]
    assert counters["rows_thinned"] > 0
    assert counters["rows_planned"] == counters["rows_sent"] + counters["rows_dropped"] + counters["rows_refused"]
    assert soaked.inbox.rows == counters["rows_sent"] > 0
    assert soaked.missing == counters["frames_dropped"]
    print(f"capture took {soaked.told['overhead']:.3f} of step time")  # noqa: T201 - the figure is reported
    assert soaked.told["overhead"] < 0.08, "a budget of 5 %, and the self-check at the start"
    weights = [weight for seen in soaked.inbox.samples.values() for weight in seen.weights]
    assert min(weights) >= 1.0
    assert max(weights) > 1.0
