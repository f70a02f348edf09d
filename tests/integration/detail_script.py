"""Serves a model with every row at detail 4 and value masses on, and prints how far each column lies from its reference.

``python detail_script.py MODEL`` → JSON on stdout.  The reference of whole rows, top positions and block masses is what
transformers attends; value masses and output norms are held against what must be true of them whatever the model.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from headwatch.cli.output import stdout_to_stderr
from headwatch.config_file import load
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry
from headwatch.model import FEATURES
from headwatch.verify import engine
from headwatch.verify.cases import WAVES
from headwatch.verify.eager import EagerModel
from headwatch.wire.mass_code import SMALLEST, from_code

BLOCK, TOP, TOKENS = 16, 8, 6
SETTINGS = f"""
detail = 4
value_mass = true
block_tokens = {BLOCK}
top_k = {TOP}
max_full_requests = 64
max_full_bytes = 1000000000
max_detail_bytes = 60000000

[wire]"""


def main():
    model = Path(sys.argv[1])
    frames = []
    engine._CONFIGURATION = engine._CONFIGURATION.replace("\n[wire]", SETTINGS)
    with stdout_to_stderr(), tempfile.TemporaryDirectory() as folder, engine._environment(Path(folder), 24) as path:
        registry = WorkerRegistry()
        receiver = Receiver(
            load(path=str(path), environ={}).config.wire, registry, lambda batch, view: frames.append((batch, view))
        )
        receiver.start()
        llm = engine._start(model, "float32")
        engine._attach(llm, None)
        served = [request for wave in WAVES for request in engine._serve(llm, wave, TOKENS)]
        health = engine._await_frames(registry, time.time_ns())
        llm.llm_engine.engine_core.shutdown()
        receiver.stop()
        found = compare(model, served, frames)
    found["tokens"] = [list(request.generated_ids) for request in served]
    found["kernel"] = health.status.kernel
    found["counters"] = health.status.counters
    found["rejected"] = {name: count for name, count in receiver.counters.items() if name.startswith("rejected")}
    sys.stdout.write(json.dumps(found) + "\n")


def compare(model, served, frames):
    eager = EagerModel(model, "float32")
    error = dict.fromkeys(("full", "top_weight", "max_weight", "block", "span_mass", "carried"), 0.0)
    rows, by_request = 0, {}
    for batch, view in frames:
        for row in range(len(view.position)):
            context = batch.requests[view.request[row]]
            by_request.setdefault(context.request_id, []).append((batch, view, row, context))
    for request in served:
        tokens = request.prompt_ids + request.generated_ids
        attention = eager.attention(tokens)
        for batch, view, row, context in by_request[request.request_id]:
            position = int(view.position[row])
            if position >= len(tokens):
                continue
            rows += 1
            ends = [*(span.end for span in context.spans), position + 1]
            for place, layer in enumerate(batch.layers):
                true = attention[layer][:, position, : position + 1].astype(np.float64)  # [H, n]
                see(error, "full", view.detail.full_weight[row][:, place].T - true)
                weights, places = view.detail.top_weight[row, place], view.detail.top_position[row, place]
                known = min(TOP, position + 1)
                see(error, "top_weight", weights[:, :known] - np.take_along_axis(true, places[:, :known], axis=1))
                see(error, "top_weight", weights[:, :known] + np.sort(-true, axis=1)[:, :known])
                see(error, "max_weight", weights[:, 0] - view.features[row, place, :, FEATURES.index("max_weight")])
                mass = np.add.reduceat(true, np.arange(0, position + 1, BLOCK), axis=1)
                coded = from_code(view.detail.block_profile[row][:, place].T)
                relative = np.where(mass > 2 * SMALLEST, (coded - mass) / np.maximum(mass, SMALLEST), 0.0)
                see(error, "block", relative)
                spans = np.stack([true[:, a:b].sum(1) for a, b in zip([0, *ends[:-1]], ends, strict=True)])
                see(error, "span_mass", view.span_mass[row][:, place] - spans)
                # A sum is no longer than its parts laid end to end.
                see(error, "carried", np.maximum(view.output_norm[row, place] - view.value_mass[row][:, place].sum(0), 0))
    return {"rows": rows, "error": error, "details": sorted({batch.detail for batch, _ in frames if batch.layers})}


def see(error, name, difference):
    error[name] = max(error[name], float(np.abs(difference).max()))


if __name__ == "__main__":
    main()
