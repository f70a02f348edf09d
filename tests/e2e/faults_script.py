"""One real vLLM, many waves of prompts, a fault in each: python faults_script.py MODE MODEL FOLDER → JSON on stdout.

``plain``: the tokens of all waves with headwatch switched off.  ``faults``: the same waves; before each a fault is injected
into capture, in this process, and lifted after it; then a wave without a fault shows whether capture came back.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

WAVES, REQUESTS, TOKENS = 14, 4, 10
RETRY_SECONDS = 60.0
CONFIGURATION = """
[capture]
sample_rate = 1.0
step_stride = 1
prefill_stride = 16
budget_share = 1.0
error_limit = 3
retry_seconds = {retry}

[wire]
endpoint = "ipc://{folder}/frames"
queue_frames = 64
status_seconds = 0.1
"""


class InjectedError(Exception):
    """What is injected."""


def raising(*_, **__):
    raise InjectedError("injected")


def out_of_memory(*_, **__):
    raise MemoryError("injected")


class BrokenKernel:
    name = "broken"
    carries_values = True

    def summarise(self, *_):
        raise InjectedError("injected")

    again = summarise

    def settle(self):
        return 0.0


class World:
    """The engine, its capture, the sidecar's end of the wire, and what the breaker takes for the time."""

    def __init__(self, llm, capture, wire):
        self.llm, self.capture, self.wire = llm, capture, wire
        self.extra_seconds = 0.0
        capture.breaker._clock = lambda: time.monotonic() + self.extra_seconds
        self.receiver = self.registry = None
        self.rows = 0
        self.listen()

    def listen(self):
        from headwatch.ingest.receiver import Receiver
        from headwatch.ingest.workers import WorkerRegistry

        self.registry = self.registry or WorkerRegistry()
        self.receiver = Receiver(self.wire, self.registry, self._count)
        self.receiver.start()

    def deafen(self):
        self.receiver.stop()
        self.receiver = None

    def _count(self, batch, columns):
        self.rows += len(columns.request)

    def balance(self):
        counters = self.capture.status().counters
        return counters["rows_planned"] - counters["rows_sent"] - counters["rows_dropped"] - counters["rows_refused"]

    def settle(self):
        deadline = time.monotonic() + 15
        while self.balance() and time.monotonic() < deadline:
            time.sleep(0.02)


@contextmanager
def patched(target, name, value):
    with patch.object(target, name, value):
        yield


def doubting(world):
    """Make every layer earn its trust again."""
    world.capture._distrust()
    for item in world.capture.layers.values():
        item.refused = ""


@contextmanager
def wrong_pages(world):
    doubting(world)
    right = world.capture.runner.block_table
    with patched(world.capture.runner, "block_table", lambda name: right(name).roll(1, 0)):
        yield


@contextmanager
def nan_in_keys(world):
    """Capture reads a copy of the cache that is full of NaN; the engine's own cache stays as it is."""
    doubting(world)
    summarise = world.capture._summarise

    def poisoned(item, step, query, cache, output):
        summarise(item, step, query, cache.clone().fill_(float("nan")), output)

    with patched(world.capture, "_summarise", poisoned):
        yield


@contextmanager
def full_queue(world):
    """Room for two frames, and nobody who takes them."""
    world.deafen()
    with patched(world.capture.sender._queue, "maxsize", 2):
        yield
    world.listen()


@contextmanager
def dead_sidecar(world):
    world.deafen()
    yield
    world.listen()


@contextmanager
def blocked_socket(world):
    """A sidecar that takes connections and never reads."""
    import zmq

    world.deafen()
    with zmq.Context() as context, context.socket(zmq.PULL) as deaf:
        deaf.setsockopt(zmq.RCVHWM, 1)
        deaf.setsockopt(zmq.LINGER, 0)
        deaf.bind(world.wire.endpoint)
        with patched(world.capture.sender._queue, "maxsize", 2):
            yield
    world.listen()


@contextmanager
def clock_jump(world):
    """An hour forward, in the time of day and in the time that costs are measured with."""
    wall, precise = time.time_ns, time.perf_counter
    with patched(time, "time_ns", lambda: wall() + 3_600_000_000_000), patched(time, "perf_counter", lambda: precise() + 3600):
        yield


def faults(world):
    """Return the fault of each wave: name and context manager."""
    from headwatch.capture import worker
    from headwatch.capture.request.front_end import FrontEnd

    capture = world.capture
    return {
        "the front end": patched(FrontEnd, "_annotate", raising),
        "the start of a step": patched(worker, "holds_rows", raising),
        "the plan": patched(worker, "plan_step", raising),
        "out of memory": patched(worker, "allocate_part", out_of_memory),
        "the pages of a layer": patched(capture.runner, "block_table", raising),
        "the kernel": patched(capture, "kernel", BrokenKernel()),
        "another core": patched(capture.kernel, "settle", raising),
        "the end of a step": patched(capture, "_offer", raising),
        "wrong layout": wrong_pages(world),
        "NaN in K": nan_in_keys(world),
        "full queue": full_queue(world),
        "dead sidecar": dead_sidecar(world),
        "blocked socket": blocked_socket(world),
        "clock jump": clock_jump(world),
    }


def prompts(wave):
    """Return the prompts of a wave as token ids: no two alike, some longer than a step."""
    import random

    draw = random.Random(wave)
    return [
        {"prompt_token_ids": [draw.randrange(3, 380) for _ in range(draw.choice((20, 70, 300)))]} for _ in range(REQUESTS)
    ]


def serve(llm, wave):
    """Return the tokens of a wave."""
    from vllm import SamplingParams

    from headwatch.client import request_field

    parameters = SamplingParams(
        temperature=0.0, max_tokens=TOKENS, ignore_eos=True, detokenize=False,
        extra_args=dict(request_field(capture="always", route="faults")),
    )
    outputs = llm.generate(prompts(wave), parameters, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def told(world):
    status = world.capture.status()
    return {
        "up": status.up, "reason": status.reason, "errors": status.errors, "refused": status.refused_layers,
        "counters": status.counters, "balance": world.balance(), "received": world.rows,
    }


def run_faults(llm, folder):
    from headwatch.capture.plugin import current
    from headwatch.config_file import load

    capture = current(llm.llm_engine.engine_core.engine_core.model_executor.driver_worker)
    world = World(llm, capture, load().config.wire)
    tokens, seen = [serve(llm, 0)], {}
    world.settle()
    assert world.rows, "capture must work before anything is broken"
    for wave, (name, fault) in enumerate(faults(world).items(), 1):
        with fault:
            tokens.append(serve(llm, wave))
            during = told(world)
        world.settle()
        world.extra_seconds += RETRY_SECONDS + 1  # the breaker tries again
        if name in {"wrong layout", "NaN in K"}:
            doubting(world)  # a refused layer stays refused by design: a new start would be needed
        before = world.rows
        tokens.append(serve(llm, 100 + wave))
        world.settle()
        time.sleep(0.3)
        seen[name] = {"during": during, "after": told(world), "rows_after": world.rows - before}
    world.deafen()
    return {"tokens": tokens, "faults": seen}


def main():
    mode, model, folder = sys.argv[1:]
    sys.stdout.flush()
    out = os.dup(1)
    os.dup2(2, 1)
    config = Path(folder) / "headwatch.toml"
    config.write_text(CONFIGURATION.format(folder=folder, retry=RETRY_SECONDS))
    os.environ.update(
        HEADWATCH_CONFIG=str(config), VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_LOGGING_LEVEL="WARNING",
        VLLM_CPU_KVCACHE_SPACE="1", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1",
        HEADWATCH_DISABLE="1" if mode == "plain" else "0",
    )
    from vllm import LLM

    with ExitStack() as stack:
        llm = LLM(
            model=model, dtype="float32", enforce_eager=True, max_model_len=1024, max_num_batched_tokens=256,
            max_num_seqs=8, seed=0, skip_tokenizer_init=True,
        )
        stack.callback(llm.llm_engine.engine_core.shutdown)
        if mode == "plain":
            waves = [0, *(number for wave in range(1, WAVES + 1) for number in (wave, 100 + wave))]
            result = {"tokens": [serve(llm, wave) for wave in waves]}
        else:
            result = run_faults(llm, folder)
    os.write(out, json.dumps(result).encode() + b"\n")


if __name__ == "__main__":
    main()
