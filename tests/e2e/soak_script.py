"""Many requests through one real vLLM: python soak_script.py MODEL FOLDER REQUESTS CONFIG → JSON on stdout.

Lengths are random; some requests share a prefix, some have several samples, some are aborted on the way; the cache is
small, so that some are preempted.  FOLDER gets ``sent.jsonl``: what was sent and what came out, one request a line.  The
JSON says how memory went and what the worker counted.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time
from pathlib import Path

MARKER, VOCABULARY = 5, 384
DOCUMENTS, DOCUMENT_TOKENS = 6, 8
TOGETHER = 12
"""Requests in flight."""
SAMPLES = 200
"""Memory is looked at so often."""


class Traffic:
    """Draws requests; the same ones for the same seed."""

    def __init__(self, seed):
        self.draw = random.Random(seed)
        self.prefixes = [self.tokens(length) for length in (32, 64, 96, 160)]

    def tokens(self, count):
        return [self.draw.randrange(6, VOCABULARY) for _ in range(count)]

    def request(self, number):
        """Return one request: its prompt, where its documents lie, and which of them holds the marker, where."""
        draw = self.draw
        ids = list(draw.choice(self.prefixes)) if draw.random() < 0.4 else []
        ids += self.tokens(draw.randrange(4, 200))
        documents, marked = [], draw.randrange(DOCUMENTS)
        for index in range(DOCUMENTS):
            start = len(ids)
            text = self.tokens(draw.randrange(2, DOCUMENT_TOKENS))
            if index == marked:
                text[draw.randrange(len(text))] = MARKER
                marker = start + text.index(MARKER)
            ids += text
            documents.append({"id": f"r{number}-d{index}", "start": start, "end": len(ids)})
            ids += self.tokens(draw.randrange(3))
        ids += self.tokens(draw.randrange(1, 40))
        return {
            "number": number, "prompt": ids, "documents": documents, "marked": marked, "marker": marker,
            "n": 3 if draw.random() < 0.1 else 1, "tokens": draw.randrange(1, 24),
            "abort_after": draw.randrange(1, 30) if draw.random() < 0.1 else 0,
        }


def resident_kib():
    """Return the resident memory of this process."""
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def parameters_of(request):
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    from headwatch.client import request_field

    return SamplingParams(
        n=request["n"], temperature=1.0, max_tokens=request["tokens"], ignore_eos=True, detokenize=False,
        logit_bias={MARKER: -100.0}, output_kind=RequestOutputKind.FINAL_ONLY,
        extra_args=dict(request_field(documents=request["documents"], route="soak", capture="always")),
    )


def soak(engine, folder, count):
    """Send *count* requests; return memory by number of ended requests."""
    traffic, memory = Traffic(5), []
    flying, steps, ended, number = {}, 0, 0, 0
    with (folder / "sent.jsonl").open("w") as log:
        def finish(name, generated):
            nonlocal ended
            request, _ = flying.pop(name)
            record = {key: request[key] for key in ("number", "documents", "marked", "marker", "n")}
            record.update(prompt_tokens=len(request["prompt"]), generated=generated)
            log.write(json.dumps(record) + "\n")
            ended += 1
            if ended % max(count // SAMPLES, 1) == 0:
                memory.append((ended, resident_kib()))

        while flying or number < count:
            while number < count and len(flying) < TOGETHER:
                request = traffic.request(number)
                engine.add_request(f"r{number}", {"prompt_token_ids": request["prompt"]}, parameters_of(request))
                flying[f"r{number}"] = request, steps
                number += 1
            steps += 1
            for output in engine.step():
                if output.finished and output.request_id in flying:
                    finish(output.request_id, [len(sample.token_ids) for sample in output.outputs])
            for name, (request, since) in list(flying.items()):
                if request["abort_after"] and steps - since >= request["abort_after"]:
                    engine.abort_request([name])
                    finish(name, None)
    return memory, steps


def settled(capture):
    """Return the worker's counters once nothing is under way any more."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = capture.status()
        counters = status.counters
        if counters["rows_planned"] == counters["rows_sent"] + counters["rows_dropped"] + counters["rows_refused"]:
            break
        time.sleep(0.1)
    return status


def main():
    model, folder, count, settings = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    out = os.dup(1)
    os.dup2(2, 1)
    config = folder / "headwatch.toml"
    config.write_text(settings)
    os.environ.update(
        HEADWATCH_CONFIG=str(config), VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_LOGGING_LEVEL="WARNING",
        VLLM_CPU_KVCACHE_SPACE="1", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1",
        # The engine's oneDNN keeps the last 1,024 shapes of products: 250 MiB more in 2,000 requests of random length,
        # without headwatch as well.  Without that cache the engine alone grows by 0.4 KiB a request.
        ONEDNN_PRIMITIVE_CACHE_CAPACITY="0",
    )
    from vllm import LLM

    from headwatch.capture.plugin import current

    llm = LLM(
        model=model, dtype="float32", enforce_eager=True, max_model_len=1024, max_num_batched_tokens=256,
        max_num_seqs=16, seed=0, enable_prefix_caching=True, num_gpu_blocks_override=40,
    )
    capture = current(llm.llm_engine.engine_core.engine_core.model_executor.driver_worker)
    memory, steps = soak(llm.llm_engine, folder, count)
    if capture is None:  # HEADWATCH_DISABLE=1: how the engine's own memory goes
        llm.llm_engine.engine_core.shutdown()
        os.write(out, json.dumps({"memory_kib": memory, "steps": steps}).encode() + b"\n")
        return
    for _ in range(3):  # the scheduler tells of the last ended requests with its next step
        llm.generate([{"prompt_token_ids": [7, 8, 9]}], use_tqdm=False)
    status = settled(capture)
    gc.collect()
    result = {
        "memory_kib": memory, "steps": steps, "counters": status.counters, "errors": status.errors, "up": status.up,
        "reason": status.reason, "refused": status.refused_layers, "sequence": status.sequence,
        "open_requests": len(capture.requests), "stride": status.budget_stride,
        "overhead": status.capture_seconds / status.step_seconds,
    }
    capture.sender.stop(5.0)
    llm.llm_engine.engine_core.shutdown()
    os.write(out, json.dumps(result).encode() + b"\n")


if __name__ == "__main__":
    main()
